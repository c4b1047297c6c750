//! Progress bars: on a terminal only, and one set of them for the program, so that logs can step around.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    io::{self, IsTerminal},
    sync::LazyLock,
};

/// The program's bars, on standard error.
pub(crate) fn bars() -> &'static MultiProgress {
    static BARS: LazyLock<MultiProgress> = LazyLock::new(|| {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        MultiProgress::with_draw_target(target)
    });
    &BARS
}

/// A bar for `total` bytes of input; without a total, one that only counts.
pub(crate) fn bytes(total: Option<u64>) -> ProgressBar {
    add(
        total,
        "{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {msg} {eta}",
        "{spinner} {bytes} {bytes_per_sec} {msg}",
    )
}

/// A bar for `total` messages; without a total, one that only counts.
pub(crate) fn messages(total: Option<u64>) -> ProgressBar {
    add(total, "{bar:40} {human_pos}/{human_len} {per_sec} {eta}", "{spinner} {human_pos} {per_sec}")
}

fn add(total: Option<u64>, known: &str, unknown: &str) -> ProgressBar {
    let template = if total.is_some() { known } else { unknown };
    let style = ProgressStyle::with_template(template).expect("the templates are constants");
    let bar = ProgressBar::no_length().with_style(style);
    if let Some(total) = total {
        bar.set_length(total);
    }
    bars().add(bar)
}
