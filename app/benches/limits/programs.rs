//! The program under measurement, and what a section needs around it.

use infrastructure::test_servers::{ServerProcess, postgres::PostgresServer, redis::RedisServer};
use std::{
    fs::{self, File},
    io::{BufRead, BufReader, Lines},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// How many shards the program has by default.
pub(crate) const SHARDS: u32 = 8;
const LIMIT: Duration = Duration::from_mins(5);

pub(crate) struct Bench {
    folder: TempDir,
    only: Option<Vec<String>>,
    quick: bool,
    names: AtomicU32,
    pub(crate) runtime: Runtime,
}

impl Bench {
    /// Reads the wishes of whoever runs it: `QUICK` and `ONLY`.
    pub(crate) fn new() -> Self {
        let wish = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            folder: TempDir::new().unwrap(),
            only: wish("ONLY").map(|names| names.split(',').map(str::to_owned).collect()),
            quick: wish("QUICK").is_some(),
            names: AtomicU32::new(0),
            runtime: Runtime::new().unwrap(),
        }
    }

    pub(crate) fn wants(&self, section: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|name| name == section))
    }

    pub(crate) fn rounds(&self) -> u32 {
        if self.quick { 1 } else { 3 }
    }

    /// The one number for a quick run, the other for a whole one.
    pub(crate) fn size(&self, quick: u32, whole: u32) -> u32 {
        if self.quick { quick } else { whole }
    }

    /// A name that nothing else in this run has.
    pub(crate) fn name(&self, prefix: &str) -> String {
        format!("{prefix}_{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts the program in a folder of its own.
    pub(crate) fn spawn(&self, arguments: &[&str], settings: &[(&str, String)]) -> App {
        let folder = self.path(&self.name("app"));
        fs::create_dir(&folder).unwrap();
        let log = folder.join("log");
        let file = File::create(&log).unwrap();
        let process = ServerProcess::start(None, env!("CARGO_BIN_EXE_app"), |command| {
            let settings = settings.iter().map(|(name, value)| (*name, value.as_str()));
            command.args(arguments).current_dir(&folder).env_clear().envs(settings);
            command.stdout(Stdio::null()).stderr(file);
        });
        App { process, log }
    }

    /// Runs the program to its end, which is a success.
    pub(crate) fn run(&self, arguments: &[&str], settings: &[(&str, String)]) {
        let mut app = self.spawn(arguments, settings);
        let status = app.process.wait();
        assert!(status.success(), "app {arguments:?}: {}", app.log());
    }
}

/// A process of the program; killed when dropped.
pub(crate) struct App {
    pub(crate) process: ServerProcess,
    log: PathBuf,
}

impl App {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it in peace.
    pub(crate) fn end(mut self) {
        self.process.signal("TERM");
        let status = self.process.wait();
        assert!(status.success(), "{}", self.log());
    }
}

/// A Redis and a database that nobody has used.
pub(crate) struct Stores {
    pub(crate) redis: RedisServer,
    pub(crate) ledger: String,
}

impl Stores {
    pub(crate) fn new(bench: &Bench, postgres: &PostgresServer) -> Self {
        Self { redis: RedisServer::start(), ledger: postgres.create_database(&bench.name("books")) }
    }

    pub(crate) fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("REDIS_URL", self.redis.url()), ("LEDGER_URL", self.ledger.clone())]
    }

    /// How many pulses are counted, duplicates not among them.
    pub(crate) fn counted(&self) -> u32 {
        const SUM: &str = "local sum = 0 \
            for _, key in ipairs(KEYS) do sum = sum + (redis.call('HGET', key, 'counted') or 0) end return sum";
        let keys: Vec<String> = (0..SHARDS).map(|shard| format!("pulse:{{{shard}}}:meta")).collect();
        let count = SHARDS.to_string();
        let words: Vec<&str> =
            ["EVAL", SUM, &count].into_iter().chain(keys.iter().map(String::as_str)).collect();
        self.redis.command(&words)
    }

    /// Waits until so many are counted.
    pub(crate) fn wait_for(&self, count: u32, app: &App) -> u32 {
        let start = Instant::now();
        loop {
            let counted = self.counted();
            if counted >= count {
                return counted;
            }
            assert!(start.elapsed() < LIMIT, "{counted} of {count} are counted: {}", app.log());
            sleep(Duration::from_millis(10));
        }
    }
}

/// This program again, as something that is measured: see [`crate::children`].
pub(crate) struct Helper {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Helper {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it says next.
    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("the helper says something").unwrap()
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The size of a file in MiB.
pub(crate) fn mebibytes(file: &Path) -> f64 {
    let bytes = fs::metadata(file).unwrap().len();
    f64::from(u32::try_from(bytes / 1024).unwrap()) / 1024.0
}
