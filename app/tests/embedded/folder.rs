//! A folder of its own for the program, and what it says there.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A working directory with nothing in it but what a test puts there.
pub(crate) struct Folder(TempDir);

/// What a run of the program came to.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) errors: String,
}

/// A run of the program that goes on; killed when dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Folder {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    /// The program, with no environment but what is given.
    fn command(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_app"));
        command.args(arguments).current_dir(self.0.path()).env_clear();
        // A port that is free: services of many tests run side by side.
        command.env("HTTP_ADDR", "127.0.0.1:0").envs(settings.iter().copied());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        self.run_with(arguments, &[], "")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], settings: &[(&str, &str)], input: &str) -> Ran {
        let mut child = self
            .command(arguments, settings)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        Ran {
            code: output.status.code(),
            out: String::from_utf8(output.stdout).unwrap(),
            errors: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Runs the program, which succeeds, and returns what it prints.
    pub(crate) fn succeed(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "app {arguments:?}: {ran:#?}");
        ran.out
    }

    pub(crate) fn start(&self, name: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Running {
        let log = self.path(name);
        let file = File::create(&log).unwrap();
        let child = self
            .command(arguments, settings)
            .stdin(Stdio::null())
            .stdout(File::create(log.with_extension("out")).unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Running { child, log }
    }

    /// Flushes and returns what the ledger holds as CSV.
    pub(crate) fn billed(&self) -> String {
        self.succeed(&["flush"]);
        self.succeed(&["usage", "--billed", "--csv"])
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it printed.
    pub(crate) fn out(&self) -> String {
        fs::read_to_string(self.log.with_extension("out")).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    pub(crate) fn wait_for_log(&self, text: &str) {
        wait_until(text, || self.log().contains(text));
    }

    /// The exit code, once it has ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        wait_until("the program ends", || self.has_ended());
        self.child.wait().unwrap().code()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// `kill -9`; the status tells whether it came in time.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        self.child.kill().unwrap();
        self.child.wait().unwrap()
    }

    /// SIGTERM, and the exit code that follows.
    pub(crate) fn terminate(&mut self) -> Option<i32> {
        let kill = format!("kill -TERM {}", self.pid());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        self.exit_code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the condition holds.
pub(crate) fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(30), "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The day of flights that the repository ships, and what it comes to.
pub(crate) fn flights() -> (String, String) {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let totals = fs::read_to_string(examples.join("flights-day.totals.csv")).unwrap();
    (examples.join("flights-day.ndjson").to_str().unwrap().to_owned(), totals)
}

/// Lines without ids and what they come to, as `app usage --billed --csv` prints it.
pub(crate) fn anonymous_lines(count: u32) -> (String, String) {
    let (mut lines, mut totals) = (String::new(), BTreeMap::<String, (u64, u64)>::new());
    for number in 0..count {
        // Many lines are equal to each other: only their places tell them apart.
        let (tenant, hour, amount) = (number % 7, number % 5, 1 + number % 3);
        let time = format!("2026-01-10T0{hour}:00:00Z");
        let line = format!(
            "{{\"tenant\":\"t{tenant}\",\"product_sku\":\"s\",\"used_amount\":{amount},\"use_unity\":\"KB\",\
             \"occurred_at\":\"{time}\"}}\n"
        );
        lines.push_str(&line);
        let total = totals.entry(format!("t{tenant},s,KB,{time}")).or_default();
        *total = (total.0 + u64::from(amount), total.1 + 1);
    }
    let mut csv = "tenant,product_sku,use_unity,window_start,used_amount,pulse_count\n".to_owned();
    for (key, (amount, pulses)) in totals {
        csv.push_str(&[key, amount.to_string(), pulses.to_string()].join(","));
        csv.push('\n');
    }
    (lines, csv)
}
