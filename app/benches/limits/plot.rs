//! The ratios as bars.

use crate::report::Report;
use plotters::prelude::*;
use std::path::Path;

const WIDTH: u32 = 900;
const BAR: u32 = 34;

/// Draws a bar for each row that has a limit, with its target as a mark.
pub(crate) fn write(file: &Path, report: &Report) {
    let rows: Vec<_> = report.rows().iter().filter(|row| row.ratio.is_some()).collect();
    let height = 70 + BAR * u32::try_from(rows.len()).unwrap();
    let area = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let end = rows.iter().filter_map(|row| row.ratio).fold(1.2, f64::max);
    let count = i32::try_from(rows.len()).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(30)
        .y_label_area_size(330)
        .build_cartesian_2d(0.0..end, (0..count.max(1)).into_segmented())
        .unwrap();
    let name = |place: &SegmentValue<i32>| match place {
        SegmentValue::CenterOf(place) => usize::try_from(*place)
            .ok()
            .and_then(|place| rows.get(rows.len().checked_sub(place + 1)?))
            .map(|row| format!("{}: {}", row.section, row.name))
            .unwrap_or_default(),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows.len())
        .y_label_formatter(&name)
        .x_desc("part of the limit's rate; the line is the target")
        .draw()
        .unwrap();
    for (place, row) in (0..).zip(rows.iter().rev()) {
        let ratio = row.ratio.unwrap_or_default();
        let reached = row.target.is_none_or(|target| ratio >= target);
        let colour = if reached { RGBColor(46, 125, 90) } else { RGBColor(190, 80, 50) };
        let (low, high) = (SegmentValue::Exact(place), SegmentValue::Exact(place + 1));
        let mut bar = Rectangle::new([(0.0, low), (ratio, high)], colour.filled());
        bar.set_margin(5, 5, 0, 0);
        chart.draw_series([bar]).unwrap();
        if let Some(target) = row.target {
            let line = [(target, SegmentValue::Exact(place)), (target, SegmentValue::Exact(place + 1))];
            chart.draw_series([PathElement::new(line, BLACK.stroke_width(2))]).unwrap();
        }
    }
    area.present().unwrap();
}
