//! How costs grow, drawn: both axes logarithms, each cost as a multiple of what it was at the smallest size.

use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Sweep;
use super::cost::{METRICS, Metric};
use crate::failure::Failure;

const FONT: &str = "sans-serif";
const PANEL: (u32, u32) = (520, 340);
const COLUMNS: usize = 2;
/// One for each metric.
const COLORS: [RGBColor; 7] = [
    RGBColor(0x7f, 0x7f, 0x7f),
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0xff, 0x7f, 0x0e),
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0x8c, 0x56, 0x4b),
];

type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws a panel for each dimension.
pub(super) fn write(sweeps: &[Sweep], path: &Path) -> Result<(), Failure> {
    let mut svg = String::new();
    let doing = || format!("drawing {}", path.display());
    draw(sweeps, &mut svg).map_err(|error| Failure::Wrong(format!("{}: {error}", doing())))?;
    fs::write(path, svg).map_err(Failure::system(doing()))
}

fn draw(sweeps: &[Sweep], svg: &mut String) -> Drawn {
    // One more, to say which line is what.
    let rows = (sweeps.len() + 1).div_ceil(COLUMNS);
    let size = (PANEL.0 * COLUMNS as u32, PANEL.1 * u32::try_from(rows)?);
    let root = SVGBackend::with_string(svg, size).into_drawing_area();
    root.fill(&WHITE)?;
    let areas = root.split_evenly((rows, COLUMNS));
    for (sweep, area) in sweeps.iter().zip(&areas) {
        panel(sweep, area)?;
    }
    if let Some(area) = areas.get(sweeps.len()) {
        legend(area)?;
    }
    root.present()?;
    Ok(())
}

fn panel(sweep: &Sweep, area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
    let sizes = sweep.points.iter().map(|(size, _)| *size as f64);
    let (first, last) = sizes.fold((f64::MAX, 1.0_f64), |all, one| {
        (all.0.min(one), all.1.max(one))
    });
    let (first, last) = (first.min(last), last.max(first.min(last) * 2.0));
    let curves = METRICS.map(|metric| multiples(sweep, &metric));
    let most = curves.iter().flatten().map(|point| point.1);
    let most = most.fold(last / first, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(sweep.axis.title(), (FONT, 16))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(52)
        .build_cartesian_2d((first..last).log_scale(), (0.3..most * 2.0).log_scale())?;
    chart
        .configure_mesh()
        .max_light_lines(1)
        .x_labels(4)
        .y_labels(5)
        .x_label_formatter(&|size| format!("{size:.0}"))
        .y_label_formatter(&|times| format!("{times:.0}"))
        .y_desc("times the smallest")
        .label_style((FONT, 11))
        .draw()?;
    let proportional = [(first, 1.0), (last, last / first)];
    let dashes = DashedLineSeries::new(proportional, 6, 4, BLACK.stroke_width(1));
    chart.draw_series(dashes)?;
    for (curve, color) in curves.into_iter().zip(COLORS) {
        let line = LineSeries::new(curve, color.stroke_width(2));
        chart.draw_series(line.point_size(3))?;
    }
    Ok(())
}

/// Which color is what.
fn legend(area: &DrawingArea<SVGBackend<'_>, Shift>) -> Drawn {
    let names = METRICS.iter().map(|metric| metric.name).zip(COLORS);
    let all = names.chain([("in proportion (dashed)", BLACK)]);
    for (y, (name, color)) in (60..).step_by(26).zip(all) {
        let line = PathElement::new([(60, y), (100, y)], color.stroke_width(2));
        area.draw(&line)?;
        area.draw(&Text::new(name, (112, y - 7), (FONT, 14)))?;
    }
    Ok(())
}

/// A cost by size, as a multiple of the first that is greater than nothing.
fn multiples(sweep: &Sweep, metric: &Metric) -> Vec<(f64, f64)> {
    let points = sweep.points.iter();
    let points = points.map(|(size, cost)| (*size as f64, (metric.of)(cost)));
    let points: Vec<(f64, f64)> = points.filter(|(_, cost)| *cost > 0.0).collect();
    let first = points.first().map_or(1.0, |point| point.1);
    let multiples = points.into_iter();
    multiples.map(|(size, cost)| (size, cost / first)).collect()
}
