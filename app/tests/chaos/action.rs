//! What is done to the program and its servers, drawn from a seed.

use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{fmt, time::Duration};

/// How many processes there are of each kind.
pub(crate) const WORKERS: usize = 3;
pub(crate) const CRONS: usize = 2;

/// How often a server is killed in a round, or its disk filled, at most.
const SERVERS_MAX: u32 = 2;

/// A server, and the proxy before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Server {
    Redis,
    Postgres,
    Rabbitmq,
}

/// A process of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Process {
    Worker(usize),
    Cron(usize),
    /// There is one in rounds that archive, in the place of the last cron.
    Archive,
}

/// One deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// SIGKILL, and a new start at once.
    Kill(Process),
    /// SIGSTOP, and SIGCONT after the time.
    Pause(Process, Duration),
    /// SIGKILL of the whole server, and a new start on the same data.
    KillServer(Server),
    /// SIGSTOP of Redis, and SIGCONT after the time.
    PauseRedis(Duration),
    /// All connections to a server are closed.
    CutAll(Server),
    /// Requests on one connection are swallowed for the time, then it is closed.
    LoseRequests(Server, usize, Duration),
    /// Answers on one connection are swallowed for the time, then it is closed.
    LoseAnswers(Server, usize, Duration),
    /// Redis is at its memory limit for the time.
    FillRedis(Duration),
    /// The disk of PostgreSQL is full for the time.
    FillDisk(Duration),
}

impl Action {
    /// The deeds of a round, each with when it is done, in order. `Kill` is the most frequent by far.
    pub(crate) fn draw(seed: u64, length: Duration) -> Vec<(Duration, Self)> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut at = Duration::from_millis(random.random_range(200..600));
        let mut actions = Vec::new();
        let mut servers = 0;
        while at < length {
            let action = Self::one(&mut random);
            // A server that starts takes a good part of a round; RabbitMQ has settled queues in the second half.
            let is_server = matches!(action, Self::KillServer(_) | Self::FillDisk(_));
            let too_early = action == Self::KillServer(Server::Rabbitmq) && at < length / 2;
            if !(too_early || is_server && servers == SERVERS_MAX) {
                servers += u32::from(is_server);
                actions.push((at, action));
            }
            at += Duration::from_millis(random.random_range(40..260));
        }
        actions
    }

    fn one(random: &mut StdRng) -> Self {
        let some_time = Duration::from_millis(random.random_range(200..1_500));
        let process = if random.random_ratio(3, 4) {
            Process::Worker(random.random_range(0..WORKERS))
        } else {
            Process::Cron(random.random_range(0..CRONS))
        };
        let server =
            [Server::Redis, Server::Postgres, Server::Rabbitmq, Server::Rabbitmq][random.random_range(0..4)];
        let connection = random.random_range(0..64);
        match random.random_range(0..100) {
            0..62 => Self::Kill(process),
            62..72 => Self::Pause(process, some_time),
            72..74 => Self::KillServer(Server::Redis),
            74..76 => Self::KillServer(Server::Postgres),
            76..81 => Self::KillServer(Server::Rabbitmq),
            81..82 => Self::PauseRedis(some_time),
            82..85 => Self::CutAll(server),
            85..90 => Self::LoseRequests(server, connection, some_time / 3),
            90..95 => Self::LoseAnswers(server, connection, some_time / 3),
            95..98 => Self::FillRedis(some_time),
            _ => Self::FillDisk(some_time),
        }
    }

    /// In a round that archives: what would be done to the last cron is done to the archive.
    pub(crate) fn with_archive(self) -> Self {
        let other = |process| if process == Process::Cron(CRONS - 1) { Process::Archive } else { process };
        match self {
            Self::Kill(process) => Self::Kill(other(process)),
            Self::Pause(process, time) => Self::Pause(other(process), time),
            action => action,
        }
    }

    /// Whether it is PostgreSQL that suffers.
    pub(crate) const fn is_of_postgres(self) -> bool {
        matches!(
            self,
            Self::FillDisk(_)
                | Self::KillServer(Server::Postgres)
                | Self::CutAll(Server::Postgres)
                | Self::LoseRequests(Server::Postgres, ..)
                | Self::LoseAnswers(Server::Postgres, ..)
        )
    }

    /// By what name it is counted.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Kill(Process::Worker(_)) => "SIGKILL worker",
            Self::Kill(Process::Cron(_)) => "SIGKILL cron",
            Self::Kill(Process::Archive) => "SIGKILL archive",
            Self::Pause(Process::Archive, _) => "SIGSTOP archive",
            Self::Pause(Process::Worker(_), _) => "SIGSTOP worker",
            Self::Pause(Process::Cron(_), _) => "SIGSTOP cron",
            Self::KillServer(Server::Redis) => "SIGKILL Redis",
            Self::KillServer(Server::Postgres) => "SIGKILL PostgreSQL",
            Self::KillServer(Server::Rabbitmq) => "SIGKILL RabbitMQ",
            Self::PauseRedis(_) => "SIGSTOP Redis",
            Self::CutAll(_) => "connections cut",
            Self::LoseRequests(..) => "requests lost",
            Self::LoseAnswers(..) => "answers lost",
            Self::FillRedis(_) => "Redis full",
            Self::FillDisk(_) => "PostgreSQL disk full",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
