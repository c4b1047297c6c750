//! A real PostgreSQL for tests.

use super::{ServerProcess, free_port, require, signal};
use std::{
    env, fs,
    fs::File,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Where Debian's packages put the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";
const USER: &str = "postgres";
const START_LIMIT: Duration = Duration::from_mins(1);
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A PostgreSQL with a cluster of its own, as durable as one in production: what it committed survives [`Self::kill`].
///
/// Accepts everybody from this machine as the superuser `postgres`.
#[derive(Debug)]
pub struct PostgresServer {
    process: ServerProcess,
    programs: PathBuf,
    settings: Vec<String>,
    port: u16,
    folder: TempDir,
}

impl PostgresServer {
    /// Makes a cluster and starts it; returns when it accepts queries.
    ///
    /// # Panics
    /// Where PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// As [`Self::start`], with settings such as `fsync=off`.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_with(settings: &[&str]) -> Self {
        Self::start_in(&env::temp_dir(), settings)
    }

    /// As [`Self::start_with`], with its data in a new folder in `parent`, which all users may write to: a small disk, for
    /// example.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_in(parent: &Path, settings: &[&str]) -> Self {
        let programs = programs();
        require(&programs.join("postgres").to_string_lossy(), "postgresql");
        let folder = TempDir::with_prefix_in("pulse-postgres-", parent).expect("a temporary folder");
        if let Some(user) = other_user() {
            run(Command::new("chown").arg(format!("{user}:")).arg(folder.path()));
        }
        let mut initdb = as_user(&programs.join("initdb"));
        initdb.args([
            "--no-sync",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "--username",
            USER,
            "--pgdata",
        ]);
        run(initdb.arg(data(&folder)));
        let settings: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let port = free_port();
        let process = launch(&programs, &folder, port, &settings);
        Self { process, programs, settings, port, folder }
    }

    /// Of the database `postgres`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of(USER)
    }

    /// Of any database.
    #[must_use]
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://{USER}@127.0.0.1:{}/{database}", self.port)
    }

    /// Makes an empty database; returns its URL.
    ///
    /// # Panics
    /// Where it exists already.
    #[must_use]
    pub fn create_database(&self, name: &str) -> String {
        let mut createdb = as_user(&self.programs.join("createdb"));
        run(createdb
            .args(["--host=127.0.0.1", "--username", USER])
            .arg(format!("--port={}", self.port))
            .arg(name));
        self.url_of(name)
    }

    /// The port on 127.0.0.1 that it listens on, the same after [`Self::restart`].
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The postmaster, another one after [`Self::restart`].
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `kill -9` of the postmaster and all that it started; returns when they are gone.
    ///
    /// # Panics
    /// Where one of them does not end.
    pub fn kill(&mut self) {
        let postmaster = self.process.pid();
        // Held still first, so that it starts no process that we do not know of.
        if alive(postmaster) {
            self.process.signal("STOP");
        }
        let children = children_of(postmaster);
        self.process.kill();
        for child in &children {
            // Most end by themselves when they notice; a kill that comes too late is none.
            let _ = Command::new("kill").args(["-KILL", &child.to_string()]).stderr(Stdio::null()).status();
        }
        let start = Instant::now();
        while children.iter().any(|child| alive(*child)) {
            assert!(start.elapsed() < STOP_LIMIT, "a process of PostgreSQL outlived kill -9");
            thread::sleep(Duration::from_millis(5));
        }
        // All are gone: what the file says can only be about a stranger that was given the same number.
        let _ = fs::remove_file(data(&self.folder).join("postmaster.pid"));
    }

    /// Whether the postmaster runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        alive(self.process.pid())
    }

    /// Starts it again on the same data after [`Self::kill`], or kills it first; returns when it accepts queries.
    ///
    /// # Panics
    /// Where it does not start.
    pub fn restart(&mut self) {
        self.kill();
        self.process = launch(&self.programs, &self.folder, self.port, &self.settings);
    }

    /// Sends a signal to the postmaster, `STOP` for example.
    ///
    /// # Panics
    /// Where it is gone.
    pub fn signal(&self, name: &str) {
        signal(self.process.pid(), name);
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(programs: &Path, folder: &TempDir, port: u16, settings: &[String]) -> ServerProcess {
    let log_path = folder.path().join("log");
    let log = File::options().create(true).append(true).open(&log_path).expect("a log file");
    let postgres = programs.join("postgres");
    let mut process = ServerProcess::start(other_user(), &postgres.to_string_lossy(), |command| {
        command
            .arg("-D")
            .arg(data(folder))
            .args(["-p", &port.to_string(), "-h", "127.0.0.1", "-k"])
            .arg(folder.path());
        for setting in
            ["fsync=on", "logging_collector=off"].into_iter().chain(settings.iter().map(String::as_str))
        {
            command.args(["-c", setting]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    });
    let start = Instant::now();
    let mut ready = Command::new(programs.join("pg_isready"));
    ready.args(["--quiet", "--host=127.0.0.1", &format!("--port={port}")]);
    while !ready.status().is_ok_and(|status| status.success()) {
        if start.elapsed() > START_LIMIT || !alive(process.pid()) {
            process.kill();
            panic!("PostgreSQL did not start:\n{}", fs::read_to_string(&log_path).unwrap_or_default());
        }
        thread::sleep(Duration::from_millis(20));
    }
    process
}

fn data(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

/// The folder of the newest installed version's programs, else the first in `PATH` that has them.
fn programs() -> PathBuf {
    let installed = fs::read_dir(VERSIONS).into_iter().flatten().flatten();
    let newest = installed
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|version| Path::new(VERSIONS).join(version.to_string()).join("bin/postgres").exists())
        .max();
    if let Some(version) = newest {
        return Path::new(VERSIONS).join(version.to_string()).join("bin");
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).find(|folder| folder.join("postgres").exists());
    found.unwrap_or_else(|| Path::new("/usr/bin").to_owned())
}

/// The user to run as where we are root, which PostgreSQL refuses to be.
fn other_user() -> Option<&'static str> {
    let root = fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    root.then_some(USER)
}

fn as_user(program: &Path) -> Command {
    match other_user() {
        Some(user) => {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups", "--"]);
            command.arg(program).current_dir("/");
            command
        }
        None => Command::new(program),
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("the program starts");
    assert!(output.status.success(), "{command:?} failed:\n{}", String::from_utf8_lossy(&output.stderr));
}

/// The state and the parent of a process, from `/proc/<pid>/stat`; `None` where it is gone.
fn state_and_parent(pid: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether the process runs; one that only waits to be reaped does not.
fn alive(pid: u32) -> bool {
    state_and_parent(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

fn children_of(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| state_and_parent(*pid).is_some_and(|(_, its_parent)| its_parent == parent))
        .collect()
}
