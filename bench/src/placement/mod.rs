//! Placement: how fast a node is found, how tightly steps are packed, what a large cluster costs.
//!
//! Not here: the decision itself; it is the scheduler's own code that is measured.

mod decisions;
mod fleet;
mod growth;
mod packing;
mod policy;

use crate::workload::Workload;
use crate::{BenchError, plot};
use clap::Args;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `bench placement`.
#[derive(Debug, Clone, Args)]
pub struct PlacementArguments {
    /// Folder of public traces: `prow/k8s_prow_job_requests.csv` and
    /// `pytorch_ci/pytorch_test_file_times.csv`; without it the work is generated alike
    #[arg(long, value_name = "FOLDER")]
    pub trace: Option<PathBuf>,
    /// Sizes of the fleet for decisions a second, up to 100,000 nodes each
    #[arg(
        long,
        value_name = "COUNT",
        value_delimiter = ',',
        default_value = "1200,5000,10000,20000",
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub nodes: Vec<u32>,
    /// Folder for plots as SVG; without it none are drawn
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// Only one of the parts
    #[arg(long, value_enum)]
    pub only: Option<Part>,
}

/// A part of the experiment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Decisions a second
    Decisions,
    /// Busy nodes over the volume bound
    Packing,
    /// The cost of a whole cluster as it grows
    Growth,
}

/// Measures all parts, or the one that was asked for, and writes tables and plots.
///
/// # Errors
/// [`BenchError`] when a trace cannot be read or a result not be written.
pub fn run(arguments: &PlacementArguments, out: &mut dyn Write) -> Result<(), BenchError> {
    let work = match &arguments.trace {
        Some(folder) => Workload::of_trace(folder)?,
        None => Workload::generated(1),
    };
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).map_err(|cause| BenchError::Write {
            what: folder.display().to_string(),
            cause: cause.to_string(),
        })?;
    }
    if cfg!(debug_assertions) {
        writeln!(out, "This is a build without optimisation: its speeds mean nothing.\n")?;
    }
    writeln!(out, "Work: {}.\n", work.origin)?;
    let wanted = |part| arguments.only.is_none_or(|only| only == part);
    let folder = arguments.out.as_deref();
    if wanted(Part::Decisions) {
        report_decisions(&work, &arguments.nodes, folder, out)?;
    }
    if wanted(Part::Packing) {
        report_packing(&work, folder, out)?;
    }
    if wanted(Part::Growth) {
        growth::report(&growth::SIZES, out)?;
    }
    Ok(())
}

fn report_decisions(
    work: &Workload,
    nodes: &[u32],
    folder: Option<&Path>,
    out: &mut dyn Write,
) -> Result<(), BenchError> {
    let measured = decisions::measure(work, nodes, &decisions::Effort::FULL);
    decisions::table(&measured).print(out)?;
    writeln!(out)?;
    let Some(folder) = folder else { return Ok(()) };
    let titles = plot::Titles {
        title: "Decisions a second, one core",
        x: "nodes",
        y: "place + release, 1/s",
    };
    plot::curves(&folder.join("decisions.svg"), titles, &decisions::curves(&measured))
}

fn report_packing(work: &Workload, folder: Option<&Path>, out: &mut dyn Write) -> Result<(), BenchError> {
    let measured = packing::measure(work, &packing::Conditions::FULL);
    packing::print(&measured, &packing::Conditions::FULL, out)?;
    writeln!(out)?;
    let Some(folder) = folder else { return Ok(()) };
    let titles = plot::Titles {
        title: "Busy nodes over the volume bound (line: the goal)",
        x: "ratio; 1 is the bound",
        y: "",
    };
    let bars: Vec<(String, f64)> = measured
        .iter()
        .map(|m| (m.policy.name().to_owned(), m.ratio().mean))
        .collect();
    plot::bars(&folder.join("packing.svg"), titles, &bars, packing::GOAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plots_are_drawn_from_small_experiments() {
        let work = Workload::generated(3);
        let folder = tempfile::tempdir().expect("a folder");
        let measured = decisions::measure(&work, &[20, 60], &decisions::Effort::SMALL);
        let path = folder.path().join("decisions.svg");
        let titles = plot::Titles {
            title: "t",
            x: "x",
            y: "y",
        };
        plot::curves(&path, titles, &decisions::curves(&measured)).expect("drawn");
        let text = std::fs::read_to_string(&path).expect("a file");
        assert!(text.starts_with("<svg") && text.contains("every node"), "{text}");
        let path = folder.path().join("packing.svg");
        plot::bars(
            &path,
            titles,
            &[("one".to_owned(), 1.2), ("two".to_owned(), 1.05)],
            1.03,
        )
        .expect("drawn");
        assert!(std::fs::read_to_string(&path).expect("a file").contains("two"));
        let absent = folder.path().join("absent/packing.svg");
        let failure = plot::bars(&absent, titles, &[], 1.0).expect_err("no such folder");
        assert!(failure.to_string().contains("packing.svg"), "{failure}");
    }
}
