//! Prometheus's own tool, which reads metrics as the server does.

use super::require;
use std::{
    io::Write,
    process::{Command, Stdio},
};

const PROGRAM: &str = "/usr/bin/promtool";

/// Lets `promtool check metrics` read the text.
///
/// # Panics
/// Where it finds a fault, or is not there.
pub fn assert_clean(metrics: &str) {
    require(PROGRAM, "prometheus");
    let mut promtool = Command::new(PROGRAM)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool starts");
    let mut input = promtool.stdin.take().expect("it is piped");
    input.write_all(metrics.as_bytes()).expect("promtool reads");
    drop(input);
    let output = promtool.wait_with_output().expect("promtool ends");
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success() && said.is_empty(), "promtool: {said}\n{metrics}");
}
