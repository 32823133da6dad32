//! Latency and fan-out as an SVG: how long, by how much at once, one line for each backend.

use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Report;
use crate::failure::Failure;
use crate::figures::Row;

const SIZE: (u32, u32) = (1_200, 480);
const FONT: &str = "sans-serif";
/// One for each backend, told apart in grey as well as by those who see few colours.
const COLORS: [RGBColor; 4] = [
    RGBColor(0x99, 0x99, 0x99),
    RGBColor(0x00, 0x4d, 0x99),
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x9e, 0x73),
];
/// Nothing is drawn lower: ten microseconds.
const LEAST_MILLIS: f64 = 0.01;

/// One half of the picture.
struct Panel<'a> {
    title: &'static str,
    rows: Vec<&'a Row>,
    labels: Vec<String>,
}

/// Draws what there is to draw; nothing if neither registrations nor watchers were measured.
pub(crate) fn write(report: &Report, path: &Path) -> Result<(), Failure> {
    let panels: Vec<Panel<'_>> = [
        panel(
            report,
            "register",
            "latency p99",
            "Registering: latency p99, ms",
        ),
        panel(
            report,
            "fanout",
            "last watcher p50",
            "A change: last watcher, median, ms",
        ),
    ]
    .into_iter()
    .filter(|panel| !panel.rows.is_empty())
    .collect();
    if panels.is_empty() {
        return Ok(());
    }
    let mut svg = String::new();
    let drawn = draw(report, &panels, &mut svg);
    let doing = || format!("drawing {}", path.display());
    drawn.map_err(|error| Failure::Wrong(format!("{}: {error}", doing())))?;
    fs::write(path, svg).map_err(Failure::system(doing()))
}

fn panel<'a>(report: &'a Report, workload: &str, what: &str, title: &'static str) -> Panel<'a> {
    let rows = report.figures.rows.iter();
    let rows: Vec<&Row> = rows
        .filter(|row| row.subject.workload == workload && row.subject.what == what)
        .collect();
    let labels = rows.iter().map(|row| label(&row.subject.case)).collect();
    Panel {
        title,
        rows,
        labels,
    }
}

/// A case in few words.
fn label(case: &str) -> String {
    let short = case
        .trim_start_matches("1 replica, ")
        .replace(" watchers on ", " on ")
        .replace(" connections", "")
        .replace(" watchers, a connection each", ", each own")
        .replace(" watchers of 100 instances", ", a list");
    match short.split_once(", a list, ") {
        Some((watchers, _)) => format!("{watchers}, slow ones"),
        None => short,
    }
}

fn draw(
    report: &Report,
    panels: &[Panel<'_>],
    svg: &mut String,
) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    for (area, panel) in root.split_evenly((1, panels.len())).iter().zip(panels) {
        draw_panel(report, panel, area)?;
    }
    root.present()?;
    Ok(())
}

fn draw_panel(
    report: &Report,
    panel: &Panel<'_>,
    area: &DrawingArea<SVGBackend<'_>, Shift>,
) -> Result<(), Box<dyn std::error::Error>> {
    let medians = panel.rows.iter().flat_map(|row| {
        let peers = report.peers.iter();
        peers.filter_map(|peer| Some(row.spread(peer.name)?.median))
    });
    let (least, most) = medians.fold((LEAST_MILLIS * 10.0, LEAST_MILLIS * 100.0), |all, one| {
        (one.min(all.0), one.max(all.1))
    });
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, (FONT, 18))
        .margin(14)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(
            (0..panel.rows.len().saturating_sub(1)).into_segmented(),
            (least.max(LEAST_MILLIS) / 2.0..most * 4.0).log_scale(),
        )?;
    let name = |place: &SegmentValue<usize>| match place {
        SegmentValue::Exact(at) | SegmentValue::CenterOf(at) => {
            panel.labels.get(*at).cloned().unwrap_or_default()
        }
        SegmentValue::Last => String::new(),
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_label_formatter(&name)
        .label_style((FONT, 11))
        .draw()?;
    for (peer, color) in report.peers.iter().zip(COLORS) {
        let points: Vec<(SegmentValue<usize>, f64)> = panel
            .rows
            .iter()
            .enumerate()
            .filter_map(|(at, row)| Some((at, row.spread(peer.name)?.median)))
            .map(|(at, median)| (SegmentValue::CenterOf(at), median.max(LEAST_MILLIS)))
            .collect();
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(3))?
            .label(peer.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .label_font((FONT, 12))
        .draw()?;
    Ok(())
}
