//! Real servers for tests, each on a private port with its data in a folder of its own, gone when dropped.
//!
//! A server whose program is missing fails the test with the command that installs it. A test process that is killed
//! takes its servers with it.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, ExitStatus},
    sync::{
        atomic::{AtomicU16, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

/// Panics with the remedy unless the program of a server is there.
///
/// # Panics
/// Where it is not.
pub fn require(program: &str, package: &str) {
    assert!(
        Path::new(program).exists(),
        "{program} is missing: run `make test-servers`, or `apt-get install --no-install-recommends {package}`"
    );
}

/// A port that nothing listens on, below the range that the system hands out by itself (from 32768).
///
/// # Panics
/// Where none of a few thousand is free.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 10_000).expect("below 10,000");
    (0..10_000)
        .map(|_| 20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed) * 7) % 12_000)
        .find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .expect("a free port between 20000 and 32000")
}

/// Waits until something accepts connections on the port.
///
/// # Panics
/// Where nothing does within the time.
pub fn wait_for_port(port: u16, limit: Duration) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let start = Instant::now();
    while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
        assert!(start.elapsed() < limit, "nothing listens on port {port} after {limit:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A server's process: killed when dropped, and by the kernel when the test process dies.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
}

impl ServerProcess {
    /// Starts the command under `setpriv --pdeathsig`, as another user where `user` names one and we are root.
    ///
    /// The kernel ties that signal to the *thread* that started the child, so one thread that never ends starts them all.
    ///
    /// # Panics
    /// Where the program cannot be started.
    #[must_use]
    pub fn start(user: Option<&str>, program: &str, configure: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        if let Some(user) = user {
            command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
        }
        command.arg("--").arg(program);
        configure(&mut command);
        let (reply, answer) = mpsc::channel();
        let start = move || {
            let _ = reply.send(command.spawn());
        };
        starter().send(Box::new(start)).expect("the starter thread runs for ever");
        let child = answer.recv().expect("the starter thread answers").expect("the server's program starts");
        Self { child }
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, `STOP` for example.
    ///
    /// # Panics
    /// Where the process is gone.
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Whether it has not ended.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// How it has ended, where it has.
    ///
    /// # Panics
    /// Where the process cannot be asked for.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be asked for")
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// Where the process cannot be waited for.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().expect("our own child can be waited for")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Sends a signal to a process that the test started.
///
/// # Panics
/// Where `kill` fails.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status();
    assert!(status.is_ok_and(|status| status.success()), "kill -{name} {pid} failed");
}

type Job = Box<dyn FnOnce() + Send>;

fn starter() -> mpsc::Sender<Job> {
    static STARTER: std::sync::OnceLock<mpsc::Sender<Job>> = std::sync::OnceLock::new();
    let sender = STARTER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        thread::spawn(move || jobs.into_iter().for_each(|job| job()));
        sender
    });
    sender.clone()
}
pub mod clickhouse;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod postgres;
pub mod promtool;
pub mod rabbitmq;
pub mod redis;
pub mod redis_cluster;
