//! The servers of a run, each behind a proxy, and the processes of a round.

use crate::{
    action::{Process, Server},
    disk::SmallDisk,
    place::Place,
    proxy::Proxy,
};
use infrastructure::test_servers::{
    ServerProcess, clickhouse::ClickhouseServer, kafka::KafkaServer, postgres::PostgresServer,
    rabbitmq::RabbitmqServer, redis::RedisServer,
};
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const DISK_MEGABYTES: u32 = 400;
/// How long a drain, a flush or an audit may take.
const RUN_LIMIT: Duration = Duration::from_mins(2);

/// Servers that live as long as the run.
pub(crate) struct Arena {
    pub(crate) rabbitmq: RabbitmqServer,
    pub(crate) redis: RedisServer,
    pub(crate) postgres: PostgresServer,
    // After its server, which writes to it.
    pub(crate) disk: Option<SmallDisk>,
    proxies: [Proxy; 3],
    /// Started by the first round that needs it.
    kafka: Option<Arc<KafkaServer>>,
    /// As above.
    clickhouse: Option<ClickhouseServer>,
    pub(crate) folder: TempDir,
}

impl Arena {
    pub(crate) fn start() -> Self {
        let (rabbitmq, redis) = (RabbitmqServer::start(), RedisServer::start());
        let disk = SmallDisk::mount(DISK_MEGABYTES);
        let small = ["max_wal_size=64MB", "min_wal_size=32MB", "autovacuum=off"];
        let postgres = match &disk {
            Some(disk) => PostgresServer::start_in(disk.folder(), &small),
            None => PostgresServer::start(),
        };
        let proxies = [redis.port(), postgres.port(), rabbitmq.port()].map(Proxy::before);
        let folder = TempDir::new().unwrap();
        Self { rabbitmq, redis, postgres, disk, proxies, kafka: None, clickhouse: None, folder }
    }

    /// The broker of the Kafka protocol. It keeps everything in its memory, so nobody kills it.
    pub(crate) fn kafka(&mut self) -> &Arc<KafkaServer> {
        self.kafka.get_or_insert_with(|| Arc::new(KafkaServer::start()))
    }

    pub(crate) fn clickhouse(&mut self) -> &ClickhouseServer {
        self.clickhouse.get_or_insert_with(ClickhouseServer::start)
    }

    pub(crate) fn proxy(&self, server: Server) -> &Proxy {
        match server {
            Server::Redis => &self.proxies[0],
            Server::Postgres => &self.proxies[1],
            Server::Rabbitmq => &self.proxies[2],
        }
    }

    /// Kills a server with all that it has started, and starts it again.
    pub(crate) fn kill(&mut self, server: Server) {
        match server {
            Server::Redis => self.redis.restart(),
            Server::Postgres => self.postgres.restart(),
            Server::Rabbitmq => self.rabbitmq.restart(),
        }
    }
}

/// Where a round keeps its books.
pub(crate) enum Ledger {
    /// In a database, by its address past the proxy.
    Postgres(String),
    /// In a folder of JSON files.
    Json(PathBuf),
}

/// The names and addresses of one round: it has a database, queues and, of Redis, everything to itself.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) queue: String,
    pub(crate) dead_letters: String,
    pub(crate) ledger: Ledger,
    pub(crate) place: Place,
    folder: PathBuf,
    direct: Vec<(&'static str, String)>,
    through_proxies: Vec<(&'static str, String)>,
}

impl Site {
    /// With empty stores. In half of the rounds identities are compact.
    pub(crate) fn prepare(arena: &mut Arena, name: &str, place: Place, seed: u64) -> Self {
        let identities = if seed.count_ones().is_multiple_of(2) { "compact" } else { "fast" };
        let more = place.settings(arena, name);
        arena.redis.config_set("maxmemory", "0");
        let () = arena.redis.command(&["FLUSHALL"]);
        let () = arena.redis.command(&["SCRIPT", "FLUSH"]);
        let ledger = if place == Place::Json {
            Ledger::Json(arena.folder.path().join(format!("{name}.books")))
        } else {
            Ledger::Postgres(arena.postgres.create_database(name))
        };
        let (queue, dead_letters) = (format!("{name}.pulses"), format!("{name}.dead"));
        let addresses = |redis: u16, postgres: u16, rabbitmq: u16| {
            let mut settings = vec![
                ("REDIS_URL", format!("redis://127.0.0.1:{redis}/")),
                (
                    "LEDGER_URL",
                    match &ledger {
                        Ledger::Postgres(_) => format!("postgres://postgres@127.0.0.1:{postgres}/{name}"),
                        Ledger::Json(folder) => format!("json:{}", folder.display()),
                    },
                ),
                ("REDIS_IDENTITIES", identities.to_owned()),
                ("RABBITMQ_URL", format!("amqp://guest:guest@127.0.0.1:{rabbitmq}/%2f")),
                ("RABBITMQ_QUEUE", queue.clone()),
                ("RABBITMQ_DEAD_LETTER_QUEUE", dead_letters.clone()),
                ("RABBITMQ_PREFETCH", "200".to_owned()),
                ("PULSE_SHARDS", "4".to_owned()),
                ("PULSE_BATCH_SIZE", "50".to_owned()),
                ("FLUSH_SCHEDULE", "* * * * * *".to_owned()),
                ("LOG_LEVEL", "info".to_owned()),
            ];
            settings.extend_from_slice(&more);
            settings
        };
        let direct = addresses(arena.redis.port(), arena.postgres.port(), arena.rabbitmq.port());
        let proxy = |server| arena.proxy(server).port();
        let through_proxies =
            addresses(proxy(Server::Redis), proxy(Server::Postgres), proxy(Server::Rabbitmq));
        let folder = arena.folder.path().to_owned();
        Self { name: name.to_owned(), queue, dead_letters, ledger, place, folder, direct, through_proxies }
    }

    /// Runs the program to its end, without proxies. `Err` says how it failed, or that it did not end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<(), String> {
        App::start(&self.folder, &format!("{}.end", self.name), arguments, &self.direct).finish(arguments)
    }

    /// What `app audit` finds broken.
    pub(crate) fn audit(&self) -> Result<(), String> {
        App::start(&self.folder, &format!("{}.audit", self.name), &["audit"], &self.direct).audited()
    }

    /// Starts a process of the program behind the proxies.
    pub(crate) fn start(&self, process: Process, more: &[(&'static str, String)]) -> App {
        let (kind, number) = match process {
            Process::Worker(number) => ("worker", number),
            Process::Cron(number) => ("cron", number),
            Process::Archive => ("archive", 0),
        };
        let settings = [&self.through_proxies[..], more].concat();
        App::start(&self.folder, &format!("{}.{kind}{number}", self.name), &[&format!("--{kind}")], &settings)
    }
}

/// A process of the program; its log is kept in a file that its successors go on with.
pub(crate) struct App {
    process: ServerProcess,
    log: PathBuf,
    paused: bool,
}

impl App {
    /// Starts it with nothing but these settings, in the folder that also holds its log.
    pub(crate) fn start(
        folder: &Path,
        name: &str,
        arguments: &[&str],
        settings: &[(&'static str, String)],
    ) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        let process = ServerProcess::start(None, env!("CARGO_BIN_EXE_app"), |command| {
            command.args(arguments).current_dir(folder);
            command.stdout(file.try_clone().unwrap()).stderr(file);
            command.envs(settings.iter().map(|(name, value)| (*name, value.as_str())));
        });
        Self { process, log, paused: false }
    }

    /// Waits until it has succeeded. `Err` says how it failed, or that it does not end.
    pub(crate) fn finish(mut self, arguments: &[&str]) -> Result<(), String> {
        let start = Instant::now();
        loop {
            match self.ended() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => {
                    return Err(format!("app {arguments:?} ended with {status}:\n{}", self.last_words()));
                }
                None if start.elapsed() > RUN_LIMIT => {
                    return Err(format!("app {arguments:?} does not end:\n{}", self.last_words()));
                }
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Of `app audit`: what it finds broken. Books that it cannot judge, as those in JSON files, are not its fault.
    pub(crate) fn audited(mut self) -> Result<(), String> {
        const BROKEN: i32 = 1;
        let start = Instant::now();
        loop {
            match self.ended() {
                Some(status) if status.code() == Some(BROKEN) => {
                    return Err(format!("app audit finds the books broken:\n{}", self.last_words()));
                }
                Some(_) => return Ok(()),
                None if start.elapsed() > RUN_LIMIT => return Err("app audit does not end".to_owned()),
                None => thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn pause(&mut self) {
        if self.process.ended().is_none() {
            self.process.signal("STOP");
            self.paused = true;
        }
    }

    pub(crate) fn resume(&mut self) {
        if std::mem::take(&mut self.paused) && self.process.ended().is_none() {
            self.process.signal("CONT");
        }
    }

    /// How it has ended, where nobody here has killed it.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.process.ended()
    }

    /// The last lines that it logged.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(8)..].join("\n")
    }
}
