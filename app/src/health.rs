//! `app health`: whether another process of this program does its work, told from what the kernel knows of it.
//!
//! The process is not asked, so one that hangs cannot answer that it is well: RabbitMQ ends the connection of a worker
//! that misses its heartbeats, and that shows here.

use crate::{
    cli::Health,
    settings::{Accumulator, Settings, SourceKind},
};
use anyhow::{Context, bail};
use secrecy::{ExposeSecret, SecretString};
use std::{
    collections::HashSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};
use url::Url;

/// The code of an established connection in `/proc/PID/net/tcp` (`TCP_ESTABLISHED` of the kernel's `tcp_states.h`).
const ESTABLISHED: &str = "01";

/// Prints that the process is healthy.
///
/// # Errors
/// Says what is missing; [`crate::settings::Faults`] where the settings cannot be those of a process that runs.
pub(crate) fn run(arguments: &Health, settings: &Settings) -> anyhow::Result<()> {
    let stores = settings.stores_or_embedded("app health", "set both, as for the process")?;
    let rabbitmq = rabbitmq(settings);
    let redis = match &stores.accumulator {
        Accumulator::Redis(redis) => connection("Redis", &redis.url),
        Accumulator::Embedded(_) => None,
    };
    check(&PathBuf::from(format!("/proc/{}", arguments.pid)), |arguments| {
        let has = |mode: &str| arguments.iter().any(|argument| argument == mode);
        let takes_messages = has("--worker") || has("--standalone") || has("--archive");
        let counts_in_redis = has("--worker") || has("--cron");
        let rabbitmq = rabbitmq.filter(|_| takes_messages);
        rabbitmq.into_iter().chain(redis.filter(|_| counts_in_redis)).collect()
    })?;
    writeln!(io::stdout(), "healthy")?;
    Ok(())
}

/// The connection of a process that takes messages, where the broker is among its sources.
fn rabbitmq(settings: &Settings) -> Option<Connection> {
    let broker = settings.rabbitmq().filter(|_| settings.sources.contains(&SourceKind::Rabbitmq))?;
    connection("RabbitMQ", &broker.url)
}

/// The connection that a URL of the settings stands for.
fn connection(server: &'static str, url: &SecretString) -> Option<Connection> {
    let url = Url::parse(url.expose_secret()).ok()?;
    let port = url.port().or(match url.scheme() {
        "amqp" => Some(5672),
        "amqps" => Some(5671),
        "redis" | "rediss" => Some(6379),
        _ => None,
    });
    Some(Connection { server, port: port? })
}

/// A server that the process holds a connection to as long as it works.
#[derive(Clone, Copy, Debug)]
struct Connection {
    /// As operators know it.
    server: &'static str,
    /// Its port on the far side.
    port: u16,
}

/// Checks that the process runs and holds each of the connections that its arguments call for.
///
/// `process` is its folder in `/proc`; `expected` says what a process with these arguments is connected to.
///
/// # Errors
/// Says what is missing.
fn check(process: &Path, expected: impl FnOnce(&[String]) -> Vec<Connection>) -> anyhow::Result<()> {
    let status = fs::read_to_string(process.join("stat")).context("the process does not run")?;
    match state(&status) {
        Some('T' | 't') => bail!("the process is stopped"),
        Some('Z' | 'X') | None => bail!("the process has ended"),
        Some(_) => {}
    }
    let arguments = fs::read(process.join("cmdline")).context("cannot read the arguments of the process")?;
    let arguments: Vec<String> = arguments
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    let ports = connected_ports(process).context("cannot read the connections of the process")?;
    let missing: Vec<String> = expected(&arguments)
        .into_iter()
        .filter(|connection| !ports.contains(&connection.port))
        .map(|connection| format!("{} (port {})", connection.server, connection.port))
        .collect();
    if !missing.is_empty() {
        bail!("not connected to {}", missing.join(" and "));
    }
    Ok(())
}

/// The state of a process, from its `stat`: the letter after its name, which may itself hold parentheses.
fn state(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// The ports on the far side of all connections that the process holds open.
fn connected_ports(process: &Path) -> io::Result<HashSet<u16>> {
    let mut own = HashSet::new();
    for entry in fs::read_dir(process.join("fd"))? {
        // One that was closed since is none.
        let Ok(target) = fs::read_link(entry?.path()) else { continue };
        let inode = target.to_str().and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']'));
        own.extend(inode.map(str::to_owned));
    }
    let mut ports = HashSet::new();
    for table in ["net/tcp", "net/tcp6"] {
        // A kernel without IPv6 has no second table.
        let Ok(table) = fs::read_to_string(process.join(table)) else { continue };
        ports.extend(
            table
                .lines()
                .skip(1)
                .filter_map(established)
                .filter(|(_, inode)| own.contains(*inode))
                .map(|it| it.0),
        );
    }
    Ok(ports)
}

/// The far port and the inode of a line of the table, where it is an established connection.
fn established(line: &str) -> Option<(u16, &str)> {
    let mut columns = line.split_whitespace();
    let remote = columns.nth(2)?;
    let state = columns.next()?;
    let inode = columns.nth(5)?;
    let (_, port) = remote.rsplit_once(':')?;
    (state == ESTABLISHED).then_some((u16::from_str_radix(port, 16).ok()?, inode))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::settings::Environment;
    use std::{
        net::{TcpListener, TcpStream},
        process::{Child, Command},
        time::{Duration, Instant},
    };

    fn this_process(port: u16) -> anyhow::Result<()> {
        check(Path::new("/proc/self"), |_| vec![Connection { server: "RabbitMQ", port }])
    }

    struct Sleeper(Child);

    impl Sleeper {
        fn start() -> Self {
            Self(Command::new("sleep").arg("60").spawn().expect("sleep starts"))
        }

        fn health(&self) -> Result<(), String> {
            check(Path::new(&format!("/proc/{}", self.0.id())), |_| Vec::new())
                .map_err(|error| error.to_string())
        }

        fn signal(&self, name: &str) {
            let status = Command::new("kill").args([name, &self.0.id().to_string()]).status();
            assert!(status.is_ok_and(|status| status.success()), "kill {name} failed");
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Signals take effect a moment later.
    fn eventually(condition: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(5) {
            if condition() {
                return true;
            }
            std::thread::yield_now();
        }
        false
    }

    #[test]
    fn a_process_is_healthy_as_long_as_it_holds_its_connection() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = server.local_addr().unwrap();
        assert!(
            this_process(address.port()).is_err(),
            "a port that is only listened on counts as a connection"
        );
        let client = TcpStream::connect(address).unwrap();
        let (accepted, _) = server.accept().unwrap();
        this_process(address.port()).unwrap();
        drop((client, accepted));
        let problem = this_process(address.port()).unwrap_err().to_string();
        assert_eq!(problem, format!("not connected to RabbitMQ (port {})", address.port()));
    }

    #[test]
    fn a_connection_that_the_server_has_ended_does_not_count() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, _) = server.accept().unwrap();
        this_process(port).unwrap();
        drop(accepted);
        assert!(eventually(|| this_process(port).is_err()));
    }

    #[test]
    fn the_connections_of_another_process_do_not_count() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let _client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let sleeper = Sleeper::start();
        let process = format!("/proc/{}", sleeper.0.id());
        assert!(check(Path::new(&process), |_| vec![Connection { server: "Redis", port }]).is_err());
    }

    #[test]
    fn a_stopped_or_dead_process_is_not_healthy() {
        let mut sleeper = Sleeper::start();
        assert_eq!(sleeper.health(), Ok(()));
        sleeper.signal("-STOP");
        assert!(eventually(|| sleeper.health() == Err("the process is stopped".to_owned())));
        sleeper.signal("-CONT");
        assert!(eventually(|| sleeper.health() == Ok(())));
        sleeper.signal("-KILL");
        assert!(eventually(|| sleeper.health() == Err("the process has ended".to_owned())));
        sleeper.0.wait().unwrap();
        assert_eq!(sleeper.health(), Err("the process does not run".to_owned()));
    }

    #[test]
    fn what_is_expected_depends_on_the_arguments() {
        let sleeper = Sleeper::start();
        let process = format!("/proc/{}", sleeper.0.id());
        let mut seen = Vec::new();
        assert!(eventually(
            || fs::read(format!("{process}/cmdline")).is_ok_and(|line| line.starts_with(b"sleep"))
        ));
        check(Path::new(&process), |arguments| {
            seen = arguments.to_vec();
            Vec::new()
        })
        .unwrap();
        assert_eq!(seen, ["sleep", "60", ""]);
    }

    #[test]
    fn a_port_that_the_url_leaves_out_is_the_usual_one() {
        let port = |url: &str| connection("it", &url.into()).map(|connection| connection.port);
        assert_eq!(port("amqp://guest@rabbitmq/%2f"), Some(5672));
        assert_eq!(port("amqps://rabbitmq"), Some(5671));
        assert_eq!(port("redis://redis:6380/1"), Some(6380));
        assert_eq!(port("rediss://redis"), Some(6379));
    }

    #[test]
    fn a_broker_is_expected_only_where_it_is_a_source() {
        let port = |sources: &str| {
            let variables = [("RABBITMQ_URL", "amqp://rabbitmq"), ("PULSE_SOURCES", sources)];
            let variables = variables.map(|(name, value)| (name.into(), value.into()));
            let environment = Environment::collect([], variables, Path::new("no such file"));
            let settings = Settings::load(&environment).unwrap();
            rabbitmq(&settings).map(|connection| connection.port)
        };
        assert_eq!(port("inbox"), None);
        assert_eq!(port("inbox,rabbitmq"), Some(5672));
    }

    #[test]
    fn the_name_of_a_process_may_hold_parentheses() {
        assert_eq!(state("1 (a) b)) S 0 1"), Some('S'));
        assert_eq!(state("nonsense"), None);
    }
}
