//! `app populate` on the command line.
#![expect(clippy::doc_markdown, reason = "these doc comments are the help text, printed as they are")]

use crate::hours::HourBound;
use clap::{Args, ValueEnum};
use domain::HourWindow;
use std::path::PathBuf;

/// Arguments of `app populate`.
#[derive(Args, Debug)]
pub(crate) struct Populate {
    /// Where to publish.
    #[arg(long)]
    pub(crate) to: Target,

    /// The format of the messages [default: pulse, with --to webhook payment].
    #[arg(long)]
    pub(crate) format: Option<Format>,

    /// With --to webhook: the API that takes them [default: http:// and HTTP_ADDR].
    #[arg(long, value_name = "URL")]
    pub(crate) url: Option<String>,

    /// How many messages to publish, repeated ones included [default: 10000, or the whole file].
    #[arg(long, value_name = "N")]
    pub(crate) total_messages: Option<u64>,

    /// How many publishers, each with a connection of its own; on Kafka one.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) workers_number: u16,

    /// How many messages each publisher has under way without a confirmation: a burst of webhooks.
    #[arg(long, value_name = "N", default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) buffer_size: u32,

    /// Publish the lines of this NDJSON file instead, one a message; gzip is recognised by itself.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["tenants", "skus", "hours", "items_per_message", "start"])]
    pub(crate) from: Option<PathBuf>,

    /// Write here the totals that must come out, each pulse counted once, as `app usage --billed --csv` prints them.
    #[arg(long, value_name = "FILE")]
    pub(crate) count_out: Option<PathBuf>,

    /// Of the messages, this many percent repeat an earlier one.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90))]
    pub(crate) duplicates: u8,

    /// How many tenants.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) tenants: u32,

    /// How many products.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) skus: u32,

    /// Over how many hours the pulses spread.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) hours: u32,

    /// The first of these hours: a date, or a full hour in RFC 3339.
    #[arg(long, value_name = "TIME", default_value = "2026-01-01", value_parser = HourBound)]
    pub(crate) start: HourWindow,

    /// How many pulses a message holds.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) items_per_message: u32,

    /// The same seed makes the same pulses with the same ids [default: by chance; the summary names it].
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

impl Populate {
    /// The format of the flag, or the one that the target takes.
    pub(crate) fn format(&self) -> Format {
        self.format.unwrap_or(match self.to {
            Target::Rabbitmq | Target::Kafka => Format::Pulse,
            Target::Webhook => Format::Payment,
        })
    }
}

/// Where `app populate` publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Target {
    /// The queue or the exchange that RABBITMQ_* names.
    Rabbitmq,
    /// The topic that KAFKA_* names. A message's key is the tenant of its first pulse (a trainer, a customer), and one
    /// publisher keeps the order within a key. In builds with the feature kafka.
    Kafka,
    /// The webhooks of a running `app --api` or `app --standalone`, signed with WEBHOOK_SECRET.
    Webhook,
}

/// What `app populate` publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Native pulses.
    Pulse,
    /// Events of users, for PULSE_FORMAT=event: RABBITMQ_EXCHANGE takes them by their routing keys. The --tenants are
    /// the users; --count-out writes a JSON object of the types, each with its users and their counts.
    Event,
    /// Purchases of trainings, for PULSE_FORMAT=purchase. The --tenants are the trainers, the --skus the trainings.
    Purchase,
    /// Tasks of customers, for PULSE_FORMAT=task. The --tenants are the customers; none repeats another one.
    Task,
    /// Events of payments, for webhooks and for PULSE_FORMAT=payment. Their types are the --skus.
    Payment,
}
