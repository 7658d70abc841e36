//! Plots as SVG files, so that a run can be looked at and kept.

use crate::BenchError;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (900, 520);

/// One line of a plot.
#[derive(Debug, Clone)]
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What a plot shows and what its axes say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Titles<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
}

fn failed(path: &Path, cause: impl std::fmt::Display) -> BenchError {
    BenchError::Write {
        what: path.display().to_string(),
        cause: cause.to_string(),
    }
}

/// Lines over an axis that grows by factors.
pub(crate) fn curves(path: &Path, titles: Titles<'_>, curves: &[Curve]) -> Result<(), BenchError> {
    draw_curves(path, titles, curves).map_err(|cause| failed(path, cause))
}

fn draw_curves(path: &Path, titles: Titles<'_>, curves: &[Curve]) -> Result<(), Box<dyn std::error::Error>> {
    let points = || curves.iter().flat_map(|c| c.points.iter().copied());
    let least = points().map(|(x, _)| x).fold(f64::MAX, f64::min).max(1.0);
    let most = points().map(|(x, _)| x).fold(least * 2.0, f64::max);
    let top = points().map(|(_, y)| y).fold(1.0, f64::max) * 1.1;
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(titles.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(45)
        .y_label_area_size(90)
        .build_cartesian_2d((least..most).log_scale(), 0.0..top)?;
    chart.configure_mesh().x_desc(titles.x).y_desc(titles.y).draw()?;
    for (n, curve) in curves.iter().enumerate() {
        let colour = Palette99::pick(n).to_rgba();
        let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)).point_size(3);
        let key = move |(x, y): (i32, i32)| PathElement::new([(x, y), (x + 18, y)], colour);
        chart.draw_series(line)?.label(&curve.name).legend(key);
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .position(SeriesLabelPosition::UpperRight)
        .draw()?;
    area.present()?;
    Ok(())
}

/// One bar for each name, with a mark at `goal`.
pub(crate) fn bars(path: &Path, titles: Titles<'_>, bars: &[(String, f64)], goal: f64) -> Result<(), BenchError> {
    draw_bars(path, titles, bars, goal).map_err(|cause| failed(path, cause))
}

fn draw_bars(
    path: &Path,
    titles: Titles<'_>,
    bars: &[(String, f64)],
    goal: f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let most = bars.iter().map(|(_, value)| *value).fold(goal, f64::max);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(titles.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(45)
        .y_label_area_size(230)
        .build_cartesian_2d(1.0..most + 0.02, (0..bars.len().max(1)).into_segmented())?;
    let name = |segment: &SegmentValue<usize>| match segment {
        SegmentValue::CenterOf(n) => bars.get(*n).map_or(String::new(), |(name, _)| name.clone()),
        SegmentValue::Exact(_) | SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .x_desc(titles.x)
        .y_desc(titles.y)
        .y_labels(bars.len() + 1)
        .y_label_formatter(&name)
        .draw()?;
    chart.draw_series(bars.iter().enumerate().map(|(n, (_, value))| {
        let (low, high) = (SegmentValue::Exact(n), SegmentValue::Exact(n + 1));
        let mut bar = Rectangle::new([(1.0, low), (*value, high)], Palette99::pick(n).filled());
        bar.set_margin(6, 6, 0, 0);
        bar
    }))?;
    let ends = [(goal, SegmentValue::Exact(0)), (goal, SegmentValue::Exact(bars.len()))];
    chart.draw_series(std::iter::once(PathElement::new(ends, BLACK.stroke_width(2))))?;
    area.present()?;
    Ok(())
}
