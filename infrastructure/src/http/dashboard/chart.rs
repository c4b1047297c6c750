//! Bars over windows of time, as SVG that takes its colours from the page.

use super::format::{short, utc};
use application::usage_windows::WindowLength;
use domain::{HourWindow, Timestamp, TotalAmount};
use maud::{Markup, PreEscaped};
use plotters::prelude::*;
use std::error::Error;

/// What is drawn.
pub(super) struct Bars<'a> {
    pub(super) length: WindowLength,
    /// Where each window begins.
    pub(super) starts: &'a [HourWindow],
    /// The amount of each window.
    pub(super) amounts: &'a [TotalAmount],
}

/// The room that a drawing has, in pixels.
#[derive(Clone, Copy)]
pub(super) struct Size {
    width: u32,
    height: u32,
    left: u32,
    labels: usize,
}

impl Size {
    /// For a wide window.
    pub(super) const WIDE: Self = Self { width: 1_000, height: 300, left: 80, labels: 10 };
    /// For a phone.
    pub(super) const NARROW: Self = Self { width: 360, height: 240, left: 60, labels: 4 };
}

/// Draws the bars.
pub(super) fn svg(bars: &Bars<'_>, size: Size) -> Result<Markup, Box<dyn Error + Send + Sync>> {
    let mut out = String::new();
    draw(bars, size, &mut out).map_err(|error| error.to_string())?;
    Ok(PreEscaped(out))
}

fn draw(bars: &Bars<'_>, size: Size, out: &mut String) -> Result<(), Box<dyn Error>> {
    let count = i32::try_from(bars.amounts.len())?;
    let highest = bars.amounts.iter().map(|amount| amount.nanos()).max().unwrap_or(0).max(1);
    let root = SVGBackend::with_string(out, (size.width, size.height)).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin_top(10)
        .margin_right(10)
        .x_label_area_size(28)
        .y_label_area_size(size.left)
        .build_cartesian_2d(0..count.max(1), 0..highest)?;
    let label = |index: &i32| {
        let start = usize::try_from(*index).ok().and_then(|index| bars.starts.get(index));
        start.map_or_else(String::new, |start| window_name(bars.length, *start, true))
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(size.labels)
        .y_labels(5)
        .x_label_formatter(&label)
        .y_label_formatter(&|nanos| short(TotalAmount::from_nanos(*nanos)))
        .label_style(("sans-serif", 13))
        .draw()?;
    let bar = |(index, amount): (i32, &TotalAmount)| {
        let mut bar = Rectangle::new([(index, 0), (index + 1, amount.nanos())], BLUE.filled());
        bar.set_margin(0, 0, 1, 1);
        bar
    };
    chart.draw_series((0..count).zip(bars.amounts).map(bar))?;
    root.present()?;
    Ok(())
}

/// The window in words; `brief` where the year can be seen elsewhere.
pub(super) fn window_name(length: WindowLength, start: HourWindow, brief: bool) -> String {
    let Some(time) = utc(Timestamp::new(start.start_seconds(), 0)) else { return start.number().to_string() };
    let format = match (length, brief) {
        (WindowLength::Hour, true) => "%d %b %H:%M",
        (WindowLength::Hour, false) => "%Y-%m-%d %H:%M",
        (WindowLength::Day, true) => "%d %b",
        (WindowLength::Day, false) => "%Y-%m-%d",
        (WindowLength::Month, true) => "%b %Y",
        (WindowLength::Month, false) => "%Y-%m",
    };
    time.format(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_window_has_a_bar_of_its_height() {
        let starts = [0, 1, 2].map(HourWindow::from_number);
        let amounts =
            ["10000000000000000", "0", "5000000000000000"].map(|text| TotalAmount::parse(text).unwrap());
        let bars = Bars { length: WindowLength::Hour, starts: &starts, amounts: &amounts };
        let svg = svg(&bars, Size::WIDE).unwrap().into_string();
        let heights: Vec<u32> = svg
            .split("<rect ")
            .skip(1)
            .filter_map(|rect| rect.split("height=\"").nth(1)?.split('"').next()?.parse().ok())
            .collect();
        assert_eq!(heights.len(), 3, "{svg}");
        assert!(
            heights[0] > 200 && heights[1] == 0 && heights[0].abs_diff(2 * heights[2]) <= 2,
            "{heights:?}"
        );
        assert!(svg.contains("01 Jan 00:00") && svg.contains("10P"), "{svg}");
    }
}
