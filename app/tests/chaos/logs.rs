//! Checks the books of a round that read a log: what the log holds is what must be counted, each place once.

use crate::{
    arena::{Arena, Ledger, Site},
    books::{self, Verdict, agree, count},
    place::{PARTITIONS, Place},
    plan::{Expected, Plan},
    totals_table::ledger_of,
};
use futures_util::StreamExt;
use infrastructure::test_servers::kafka::KafkaMessage;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::{AMQPValue, FieldTable},
};
use std::{error::Error, time::Duration};
use tokio::time::timeout;

/// When nothing more has come for so long, that was all.
const QUIET: Duration = Duration::from_secs(2);
const AT_ONCE: u16 = 200;

/// As [`books::check`], of a log.
pub(crate) fn check(arena: &mut Arena, site: &Site, plan: &Plan) -> Verdict {
    let mut broken = Vec::new();
    let (bodies, letters) = if site.place == Place::Kafka {
        let kafka = arena.kafka();
        let bodies = |messages: Vec<KafkaMessage>| {
            messages.into_iter().map(|message| String::from_utf8_lossy(&message.body).into_owned())
        };
        let log = (0..PARTITIONS).flat_map(|partition| bodies(kafka.messages_of(&site.queue, partition)));
        (log.collect(), bodies(kafka.messages(&site.dead_letters)).collect())
    } else {
        let log = read_stream(arena, &site.queue).map_err(|fault| fault.to_string());
        let letters = books::queues(arena, site).map_err(|fault| fault.to_string());
        match (log, letters) {
            (Ok(log), Ok((_, letters))) => (log, letters),
            (log, letters) => {
                broken.push(format!(
                    "RabbitMQ does not show its stream: {:?}, {:?}",
                    log.err(),
                    letters.err()
                ));
                (Vec::new(), Vec::new())
            }
        }
    };
    if bodies.len() < plan.messages.len() {
        broken.push(format!("the log holds {} messages of {}", bodies.len(), plan.messages.len()));
    }
    let expected = Expected::of_log(plan, &bodies).unwrap_or_else(|fault| {
        broken.push(fault);
        Expected::default()
    });
    let Ledger::Postgres(url) = &site.ledger else { unreachable!("logs are billed in PostgreSQL") };
    let found = ledger_of(url);
    books::differences(&found, &expected.totals(), &mut broken);
    books::flushes(url, expected.pulses(), &mut broken);
    let letters = books::dead_letters(&letters, &expected, &mut broken);
    books::redis(arena, expected.pulses(), 0, &mut broken);
    // A stream has offsets for entries of its own.
    let messages = (site.place == Place::Kafka).then(|| count(bodies.len()));
    accounts(arena, &expected, messages, &mut broken);
    let counted = found.values().map(|(_, pulses)| pulses).sum();
    Verdict { counted, letters, broken }
}

/// What is settled of the log is all of it; received = refused + taken, and taken is what was counted.
fn accounts(arena: &Arena, expected: &Expected, messages: Option<u64>, broken: &mut Vec<String>) {
    let accounts: Vec<String> = arena.redis.command(&["HVALS", "pulse:{0}:accounts"]);
    let (mut next, mut received, mut refused) = (0, 0, 0);
    for account in &accounts {
        let numbers: Vec<u64> = account.split(' ').map(|number| number.parse().unwrap()).collect();
        (next, received, refused) = (next + numbers[0], received + numbers[1], refused + numbers[2]);
    }
    let mut taken = 0;
    for key in arena.redis.command::<Vec<String>>(&["KEYS", "pulse:{*}:taken"]) {
        let counts: Vec<u64> = arena.redis.command(&["HVALS", &key]);
        taken += counts.iter().sum::<u64>();
    }
    if let Some(messages) = messages {
        agree("messages in the accounts of the log", next, messages, broken);
    }
    agree("pulses taken from the log", taken, expected.pulses(), broken);
    agree("pulses received of the log", received, taken + refused, broken);
}

/// Every message of a stream, from its first on.
fn read_stream(arena: &Arena, stream: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let read = async {
        let connection = Connection::connect(&arena.rabbitmq.url(), ConnectionProperties::default()).await?;
        let channel = connection.create_channel().await?;
        channel.basic_qos(AT_ONCE, BasicQosOptions::default()).await?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-stream-offset".into(), AMQPValue::LongString("first".into()));
        let options = BasicConsumeOptions::default();
        let mut consumer = channel.basic_consume(stream.into(), "reader".into(), options, arguments).await?;
        let mut bodies = Vec::new();
        while let Ok(Some(message)) = timeout(QUIET, consumer.next()).await {
            let message = message?;
            message.acker.ack(BasicAckOptions::default()).await?;
            bodies.push(String::from_utf8_lossy(&message.data).into_owned());
        }
        Ok(bodies)
    };
    let result = runtime.block_on(read);
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}
