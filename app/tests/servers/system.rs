//! One system under test: servers of its own, the program's processes, and readers that share no code with it.

pub(crate) use crate::totals_table::{Totals, ledger_of, totals};
use infrastructure::test_servers::{
    ServerProcess, postgres::PostgresServer, rabbitmq::RabbitmqServer, redis::RedisServer,
};
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{
        BasicAckOptions, BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
        QueueDeleteOptions,
    },
    types::{AMQPValue, FieldTable},
};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A dead letter: its headers as text, and its bytes.
pub(crate) struct DeadLetter {
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct System {
    pub(crate) rabbitmq: RabbitmqServer,
    pub(crate) redis: RedisServer,
    pub(crate) postgres: PostgresServer,
    ledger_url: String,
    redis_url: String,
    folder: TempDir,
}

/// A process of the program; its log and its output are kept in files.
pub(crate) struct App {
    pub(crate) process: ServerProcess,
    log: PathBuf,
}

impl App {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// What all runs under this name have printed.
    pub(crate) fn out(&self) -> String {
        fs::read_to_string(self.log.with_extension("out")).unwrap()
    }

    /// The exit code, once it has ended by itself.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        self.process.wait().code()
    }
}

impl System {
    pub(crate) fn start() -> Self {
        let (rabbitmq, redis) = (RabbitmqServer::start(), RedisServer::start());
        let postgres = PostgresServer::start();
        let ledger_url = postgres.create_database("pulse");
        let redis_url = redis.url();
        Self { rabbitmq, redis, postgres, ledger_url, redis_url, folder: TempDir::new().unwrap() }
    }

    /// With another Redis than its own.
    pub(crate) fn start_on(redis_url: String) -> Self {
        Self { redis_url, ..Self::start() }
    }

    pub(crate) fn ledger_url(&self) -> &str {
        &self.ledger_url
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, command: &mut Command, settings: &[(&str, &str)]) {
        command
            .current_dir(self.folder.path())
            .env("RABBITMQ_URL", self.rabbitmq.url())
            .env("REDIS_URL", &self.redis_url)
            .env("LEDGER_URL", &self.ledger_url)
            .env("LOG_LEVEL", "info")
            .envs(settings.iter().copied());
    }

    /// Starts the program; it runs until it ends, is told to, or the value is dropped.
    pub(crate) fn spawn(&self, name: &str, arguments: &[&str], settings: &[(&str, &str)]) -> App {
        let log = self.path(&format!("{name}.log"));
        let append = |path: &Path| File::options().create(true).append(true).open(path).unwrap();
        let (errors, out) = (append(&log), append(&log.with_extension("out")));
        let process = ServerProcess::start(None, env!("CARGO_BIN_EXE_app"), |command| {
            self.configure(command.args(arguments).stdout(out).stderr(errors), settings);
        });
        App { process, log }
    }

    /// The program, ready to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_app"));
        self.configure(command.args(arguments), &[]);
        command
    }

    /// Runs the program to its end, however that is.
    #[cfg(feature = "clickhouse")]
    pub(crate) fn run_with(&self, arguments: &[&str], settings: &[(&str, &str)]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_app"));
        self.configure(command.args(arguments), settings);
        command.output().unwrap()
    }

    /// Runs the program to its end and expects success.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_app"));
        self.configure(command.args(arguments), &[]);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "app {arguments:?} ended with {}: {errors}", output.status);
        output
    }

    /// Counts everything that is in the queue, flushes it and returns what the ledger holds then.
    pub(crate) fn drain(&self) -> Totals {
        let output = self.run(&["--worker", "--until-idle", "3s"]);
        self.run(&["flush"]);
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(self.depth("pulses"), 0, "the queue is empty after a drain: {log}");
        self.ledger()
    }

    /// What the ledger holds, read by `psql`.
    pub(crate) fn ledger(&self) -> Totals {
        ledger_of(&self.ledger_url)
    }

    pub(crate) fn depth(&self, queue: &str) -> u32 {
        self.amqp(async |connection| {
            let channel = connection.create_channel().await.unwrap();
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            channel.queue_declare(queue.into(), passive, FieldTable::default()).await.unwrap().message_count()
        })
    }

    /// Publishes messages with their ids, each confirmed, to the queue `pulses`, which exists.
    pub(crate) fn publish(&self, messages: &[(Option<String>, Vec<u8>)]) {
        self.amqp(async |connection| {
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let mut confirms = Vec::new();
            for (id, body) in messages {
                let mut properties = BasicProperties::default().with_delivery_mode(2);
                if let Some(id) = id {
                    properties = properties.with_message_id(id.as_str().into());
                }
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let confirm = channel
                    .basic_publish("".into(), "pulses".into(), options, body, properties)
                    .await
                    .unwrap();
                confirms.push(confirm);
            }
            for confirm in confirms {
                let confirm = confirm.await.unwrap();
                assert!(confirm.is_ack() && confirm.take_message().is_none(), "published and routed");
            }
        });
    }

    /// Publishes bodies under their routing keys to a topic exchange that exists, each confirmed and routed.
    pub(crate) fn publish_to(&self, exchange: &str, messages: &[(String, Vec<u8>)]) {
        self.amqp(async |connection| {
            let channel = connection.create_channel().await.unwrap();
            channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
            let mut confirms = Vec::new();
            for (key, body) in messages {
                let properties = BasicProperties::default().with_delivery_mode(2);
                let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
                let confirm =
                    channel.basic_publish(exchange.into(), key.as_str().into(), options, body, properties);
                confirms.push(confirm.await.unwrap());
            }
            for confirm in confirms {
                let confirm = confirm.await.unwrap();
                assert!(confirm.is_ack() && confirm.take_message().is_none(), "published and routed");
            }
        });
    }

    /// Takes all dead letters.
    pub(crate) fn dead_letters(&self) -> Vec<DeadLetter> {
        self.amqp(async |connection| {
            let channel = connection.create_channel().await.unwrap();
            let mut letters = Vec::new();
            while let Some(message) =
                channel.basic_get("pulses.dead".into(), BasicGetOptions::default()).await.unwrap()
            {
                message.delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
                let headers = message.delivery.properties.headers().clone().unwrap_or_default();
                let text = |value: &AMQPValue| match value {
                    AMQPValue::LongString(text) => text.to_string(),
                    other => format!("{other:?}"),
                };
                let headers =
                    headers.inner().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
                letters.push(DeadLetter { headers, body: message.delivery.data });
            }
            letters
        })
    }

    /// Deletes a queue, and declares it anew as a stream.
    pub(crate) fn make_stream_anew(&self, queue: &str) {
        self.amqp(async |connection| {
            let channel = connection.create_channel().await.unwrap();
            channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
            let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
            let mut arguments = FieldTable::default();
            arguments.insert("x-queue-type".into(), AMQPValue::LongString("stream".into()));
            channel.queue_declare(queue.into(), options, arguments).await.unwrap();
        });
    }

    fn amqp<T>(&self, call: impl AsyncFnOnce(&Connection) -> T) -> T {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let connection =
                Connection::connect(&self.rabbitmq.url(), ConnectionProperties::default()).await.unwrap();
            let value = call(&connection).await;
            // A channel that was dropped a moment ago may still be closing by itself; lapin then may never answer.
            let close = connection.close(200, "done".into());
            let _ = tokio::time::timeout(Duration::from_secs(5), close).await;
            value
        })
    }
}

/// As [`totals`], from a file.
pub(crate) fn totals_of(path: &Path) -> Totals {
    totals(&fs::read(path).unwrap())
}

/// Fails with a few of the differences, not with all of two books.
pub(crate) fn assert_equal(found: &Totals, expected: &Totals) {
    let missing = expected.iter().filter(|(key, total)| found.get(*key) != Some(total));
    let differences: Vec<String> =
        missing.take(5).map(|(key, total)| format!("{key:?}: {:?}, not {total:?}", found.get(key))).collect();
    let pulses = |totals: &Totals| totals.values().map(|(_, pulses)| pulses).sum::<u64>();
    assert!(
        found == expected,
        "the ledger holds {} rows and {} pulses, not {} and {}; for example {differences:#?}",
        found.len(),
        pulses(found),
        expected.len(),
        pulses(expected)
    );
}

/// Waits until the condition holds.
pub(crate) fn wait_until(what: &str, limit: Duration, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}
