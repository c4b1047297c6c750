//! A real Redis for tests.

use super::{ServerProcess, free_port, require, wait_for_port};
use redis::{Client, Connection, FromRedisValue};
use std::{
    fs,
    fs::File,
    path::Path,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const PROGRAM: &str = "/usr/bin/redis-server";
/// The same start as in production, with the same settings: the check of the append-only file included.
const START_SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/redis/start.sh");
const READY_LIMIT: Duration = Duration::from_secs(30);

/// A Redis with its data in a folder of its own, started and set as `deploy/redis` does unless told otherwise.
#[derive(Debug)]
pub struct RedisServer {
    process: Option<ServerProcess>,
    port: u16,
    folder: TempDir,
    options: Vec<(String, String)>,
}

impl RedisServer {
    /// Starts one that keeps what it has confirmed.
    ///
    /// # Panics
    /// Where the program is missing or does not become ready.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with other settings, by the names of `redis.conf`.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(options: &[(&str, &str)]) -> Self {
        require(PROGRAM, "redis-server");
        let folder = tempfile::tempdir().expect("a temporary folder");
        let options = options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut server = Self { process: None, port: free_port(), folder, options };
        server.restart();
        server
    }

    /// Where clients connect.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The folder that holds `appendonlydir`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What the start script said at the latest start.
    ///
    /// # Panics
    /// Where its log cannot be read.
    #[must_use]
    pub fn start_log(&self) -> String {
        fs::read_to_string(self.folder.path().join("start.log")).expect("the log can be read")
    }

    /// The process id.
    ///
    /// # Panics
    /// Where it was killed.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the server runs").pid()
    }

    /// `kill -9`; does nothing where it is dead.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it again on the same data and port, killing it first where it runs, and waits until it answers.
    ///
    /// # Panics
    /// Where it does not become ready.
    pub fn restart(&mut self) {
        self.kill();
        let (port, folder) = (self.port.to_string(), self.folder.path().to_owned());
        let log = File::create(folder.join("start.log")).expect("a log in the temporary folder");
        let defaults = [("port", port.as_str()), ("bind", "127.0.0.1"), ("logfile", "redis.log")];
        self.process = Some(ServerProcess::start(None, "/bin/sh", |command| {
            command
                .arg(START_SCRIPT)
                .env("REDIS_DATA", folder)
                .stdout(log.try_clone().expect("a file"))
                .stderr(log);
            for (name, value) in defaults {
                command.args([&format!("--{name}"), value]);
            }
            for (name, value) in &self.options {
                command.args([&format!("--{name}"), value]);
            }
        }));
        wait_for_port(self.port, READY_LIMIT);
        let start = Instant::now();
        while self.connection().is_none_or(|mut connection| redis::cmd("PING").exec(&mut connection).is_err())
        {
            assert!(start.elapsed() < READY_LIMIT, "Redis does not answer on port {}", self.port);
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops answering without dying, until [`Self::resume`].
    ///
    /// # Panics
    /// Where it was killed.
    pub fn pause(&self) {
        self.process.as_ref().expect("the server runs").signal("STOP");
    }

    /// Goes on after [`Self::pause`].
    ///
    /// # Panics
    /// Where it was killed.
    pub fn resume(&self) {
        self.process.as_ref().expect("the server runs").signal("CONT");
    }

    /// `CONFIG SET`.
    ///
    /// # Panics
    /// Where Redis refuses it.
    pub fn config_set(&self, name: &str, value: &str) {
        let () = self.command(&["CONFIG", "SET", name, value]);
    }

    /// Any command, for a look behind the adapter's back.
    ///
    /// # Panics
    /// Where Redis refuses it, or answers something else than is asked for.
    #[must_use = "ask for () where the answer does not matter"]
    pub fn command<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut connection = self.connection().expect("the server runs");
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| {
            command.arg(*word);
        });
        command.query(&mut connection).expect("the command succeeds")
    }

    fn connection(&self) -> Option<Connection> {
        let client = Client::open(self.url()).expect("a valid URL");
        client.get_connection_with_timeout(Duration::from_secs(5)).ok()
    }
}
