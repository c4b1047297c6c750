//! How soon the program is there, and how large it is.

use crate::{
    measure::{median, memory},
    programs::{Bench, mebibytes},
    report::Report,
};
use infrastructure::test_servers::{free_port, wait_for_port};
use std::{
    path::Path,
    time::{Duration, Instant},
};

pub(crate) fn measure(bench: &Bench, report: &mut Report) {
    let (mut times, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds() {
        let port = free_port();
        let start = Instant::now();
        let app = bench.spawn(&["--standalone"], &[("HTTP_ADDR", format!("127.0.0.1:{port}"))]);
        wait_for_port(port, Duration::from_secs(10));
        times.push(start.elapsed().as_secs_f64() * 1_000.0);
        sizes.push(memory(app.process.pid(), "VmRSS") / 1024.0);
        app.end();
    }
    report.fact("start", "app --standalone to the first answer, password made", median(times), "ms", None);
    report.fact("start", "app --standalone, resident memory when idle", median(sizes), "MiB", None);
    let program = mebibytes(Path::new(env!("CARGO_BIN_EXE_app")));
    report.fact("start", "the program with everything built in", program, "MiB", None);
}
