//! What CI asks of a fleet: sizes and durations of steps, from public traces or generated alike.
//!
//! A step is drawn with the duration of one of its runs, so steps keep their size and their
//! durations vary as they do between runs. In the traces a step is a test file in a configuration;
//! its rows are its runs in different jobs. Their spread is wider than that of one job from day
//! to day, so what is learned from earlier runs is worth less than it would be.
//!
//! Not here: when steps arrive ([`crate::placement`]).

use crate::BenchError;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeMap;
use std::path::Path;

/// The step limit of the product: no step lasts longer, milliseconds.
pub(crate) const LASTS_MAX_MS: u64 = 1_800_000;

/// What a step asks of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) cpu_millis: u64,
    pub(crate) memory_bytes: u64,
}

/// One run of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StepRun {
    /// Which step, below [`Workload::steps`].
    pub(crate) step: usize,
    pub(crate) lasts_ms: u64,
}

/// Sizes and runs to draw from, evenly.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    /// Where it is from, for the reader of the results.
    pub(crate) origin: String,
    pub(crate) sizes: Vec<Size>,
    pub(crate) runs: Vec<StepRun>,
    pub(crate) steps: usize,
}

/// CPU in millis with its share in a thousand, as in the public definitions of CI jobs.
const CPU: [(u64, u32); 7] = [
    (1_000, 56),
    (2_000, 250),
    (3_000, 30),
    (4_000, 466),
    (5_000, 20),
    (6_000, 66),
    (7_000, 112),
];

/// Memory for each core in MiB with its share in a thousand, likewise.
const MEMORY: [(u64, u32); 7] = [
    (1_024, 80),
    (1_536, 330),
    (2_048, 200),
    (2_304, 180),
    (3_072, 110),
    (3_584, 60),
    (4_096, 40),
];

/// How many steps are generated, and runs of each.
const STEPS: usize = 6_500;
const RUNS_OF_A_STEP: usize = 7;

/// Durations are lognormal: half of all are below this, seconds.
const MEDIAN_SECONDS: f64 = 1.87;
/// The spread of the logarithm between steps, so that the 90 % quantile is about 100 s.
const SPREAD_OF_STEPS: f64 = 3.0;
/// The spread of the logarithm between the runs of one step.
const SPREAD_OF_RUNS: f64 = 0.7;

/// A number of the normal distribution (Box and Muller).
fn normal(random: &mut StdRng) -> f64 {
    let (a, b): (f64, f64) = (random.random_range(f64::EPSILON..1.0), random.random());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

fn weighted(random: &mut StdRng, table: &[(u64, u32)]) -> u64 {
    let mut at = random.random_range(0..table.iter().map(|(_, share)| *share).sum::<u32>());
    for (value, share) in table {
        if at < *share {
            return *value;
        }
        at -= share;
    }
    table[0].0
}

fn millis(seconds: f64) -> u64 {
    ((seconds * 1_000.0) as u64).clamp(1, LASTS_MAX_MS)
}

impl Workload {
    /// Made of distributions that have the quantiles of the public traces.
    pub(crate) fn generated(seed: u64) -> Self {
        Self::generated_of(seed, STEPS)
    }

    /// The same of so many steps, so that a short replay meets each of them more than once.
    pub(crate) fn generated_of(seed: u64, steps: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let size = |random: &mut StdRng| {
            let cpu_millis = weighted(random, &CPU);
            let memory_bytes = (weighted(random, &MEMORY) << 20) * cpu_millis / 1_000;
            Size {
                cpu_millis,
                memory_bytes,
            }
        };
        let sizes = (0..steps).map(|_| size(&mut random)).collect();
        let mut runs = Vec::with_capacity(steps * RUNS_OF_A_STEP);
        for step in 0..steps {
            let usual = MEDIAN_SECONDS * (SPREAD_OF_STEPS * normal(&mut random)).exp();
            for _ in 0..RUNS_OF_A_STEP {
                let lasts_ms = millis(usual * (SPREAD_OF_RUNS * normal(&mut random)).exp());
                runs.push(StepRun { step, lasts_ms });
            }
        }
        Self {
            origin: "generated: sizes by table, lognormal durations, after the quantiles of public CI traces"
                .to_owned(),
            sizes,
            runs,
            steps,
        }
    }

    /// From the folder of the public traces.
    pub(crate) fn of_trace(folder: &Path) -> Result<Self, BenchError> {
        let sizes = read_sizes(&folder.join("prow/k8s_prow_job_requests.csv"))?;
        let (runs, steps) = read_runs(&folder.join("pytorch_ci/pytorch_test_file_times.csv"))?;
        Ok(Self {
            origin: format!(
                "trace: {} job definitions, {} durations of {steps} steps",
                sizes.len(),
                runs.len()
            ),
            sizes,
            runs,
            steps,
        })
    }

    /// A size for every step, drawn evenly, the same for the same seed.
    pub(crate) fn sizes_of_steps(&self, seed: u64) -> Vec<Size> {
        let mut random = StdRng::seed_from_u64(seed);
        let draw = |_| self.sizes[random.random_range(0..self.sizes.len())];
        (0..self.steps).map(draw).collect()
    }
}

fn read_sizes(path: &Path) -> Result<Vec<Size>, BenchError> {
    let number = |text: &str, line| {
        let wrong = |cause| fault(path, line, format!("`{text}` is no amount: {cause}"));
        text.parse::<u64>().map_err(wrong)
    };
    let rows = read_columns(path, ["cpu_req_milli", "mem_req_mib", "kind"])?;
    let size = |(line, [cpu, memory, _]): &(usize, [String; 3])| {
        let memory = number(memory, *line)?;
        Ok(Size {
            cpu_millis: number(cpu, *line)?,
            memory_bytes: memory.saturating_mul(1 << 20),
        })
    };
    rows.iter().map(size).collect()
}

fn read_runs(path: &Path) -> Result<(Vec<StepRun>, usize), BenchError> {
    let mut steps: BTreeMap<(String, String), usize> = BTreeMap::new();
    let mut runs = Vec::new();
    for (line, [config, file, seconds]) in read_columns(path, ["config", "test_file", "seconds"])? {
        let wrong = |cause| fault(path, line, format!("`{seconds}` is no duration: {cause}"));
        let seconds: f64 = seconds.parse().map_err(wrong)?;
        let next = steps.len();
        let step = *steps.entry((config, file)).or_insert(next);
        runs.push(StepRun {
            step,
            lasts_ms: millis(seconds),
        });
    }
    Ok((runs, steps.len()))
}

fn fault(path: &Path, line: usize, what: String) -> BenchError {
    BenchError::Line {
        path: path.to_owned(),
        line,
        what,
    }
}

/// Three columns of a file by their names, with the number of each line. No cell holds a line break.
fn read_columns(path: &Path, names: [&str; 3]) -> Result<Vec<(usize, [String; 3])>, BenchError> {
    let text = std::fs::read_to_string(path).map_err(|cause| BenchError::Trace {
        path: path.to_owned(),
        cause,
    })?;
    let mut lines = (1..).zip(text.lines());
    let heads = lines.next().map(|(_, head)| cells_of(head)).unwrap_or_default();
    let mut places = [0; 3];
    for (place, name) in places.iter_mut().zip(names) {
        let found = heads.iter().position(|head| head == name);
        *place = found.ok_or_else(|| fault(path, 1, format!("there is no column {name}")))?;
    }
    let mut rows = Vec::new();
    for (line, text) in lines {
        let cells = cells_of(text);
        if cells.len() != heads.len() {
            let what = format!("{} cells under {} heads", cells.len(), heads.len());
            return Err(fault(path, line, what));
        }
        rows.push((line, places.map(|place| cells[place].clone())));
    }
    if rows.is_empty() {
        return Err(fault(path, 0, "the file holds no rows".to_owned()));
    }
    Ok(rows)
}

/// The cells of a line; a comma within quotes is part of its cell.
fn cells_of(line: &str) -> Vec<String> {
    let (mut cells, mut quoted) = (vec![String::new()], false);
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            letter => {
                if let Some(cell) = cells.last_mut() {
                    cell.push(letter);
                }
            }
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantile(sorted: &[u64], part: f64) -> f64 {
        sorted[(sorted.len() as f64 * part) as usize] as f64
    }

    /// What is known of the public traces, with room for chance.
    #[test]
    fn generated_work_has_the_shape_of_the_public_traces() {
        let work = Workload::generated(1);
        let mut cpu: Vec<u64> = work.sizes.iter().map(|s| s.cpu_millis).collect();
        cpu.sort_unstable();
        for (part, millis) in [
            (0.04, 1_000.0),
            (0.25, 2_000.0),
            (0.5, 4_000.0),
            (0.75, 4_000.0),
            (0.95, 7_000.0),
        ] {
            assert_eq!(quantile(&cpu, part), millis, "cpu at {part}");
        }
        let mut lasts: Vec<u64> = work.runs.iter().map(|r| r.lasts_ms).collect();
        lasts.sort_unstable();
        for (part, millis) in [
            (0.25, 320.0),
            (0.5, 1_870.0),
            (0.75, 14_900.0),
            (0.9, 104_000.0),
            (0.95, 340_000.0),
        ] {
            let found = quantile(&lasts, part);
            assert!(
                (millis / 2.0..millis * 2.0).contains(&found),
                "{found} at {part}, not about {millis}"
            );
        }
        assert_eq!(lasts.last(), Some(&LASTS_MAX_MS));
    }

    #[test]
    fn a_trace_is_read_by_its_heads_and_its_faults_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("has one")).expect("created");
            std::fs::write(path, text).expect("written");
        };
        let read = || Workload::of_trace(folder.path()).map_err(|e| e.to_string());
        assert!(read().expect_err("nothing there").contains("--trace names a folder"));
        write(
            "prow/k8s_prow_job_requests.csv",
            "mem_req_mib,kind,cpu_req_milli\n6144,\"p, q\",4000\n",
        );
        write(
            "pytorch_ci/pytorch_test_file_times.csv",
            "job,config,test_file,seconds\na,c,f,1.5\nb,c,f,9999\na,c,g,2\n",
        );
        let work = read().expect("a trace");
        assert_eq!(
            work.sizes,
            [Size {
                cpu_millis: 4_000,
                memory_bytes: 6_144 << 20
            }]
        );
        let run = |step, lasts_ms| StepRun { step, lasts_ms };
        assert_eq!(work.runs, [run(0, 1_500), run(0, LASTS_MAX_MS), run(1, 2_000)]);
        assert_eq!(work.steps, 2);
        write(
            "prow/k8s_prow_job_requests.csv",
            "mem_req_mib,kind,cpu_req_milli\n6144,p,four\n",
        );
        assert!(read().expect_err("no number").contains(":2: `four` is no amount"));
        write("prow/k8s_prow_job_requests.csv", "mem_req_mib,kind\n1,p\n");
        assert!(read().expect_err("no column").contains("no column cpu_req_milli"));
    }
}
