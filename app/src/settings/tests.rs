//! What users are told about their settings.

use super::{
    table::{definition, definitions},
    *,
};
use std::{ffi::OsString, fs, path::Path};

fn environment(variables: &[(&str, &str)], file: &str) -> Environment {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    fs::write(&path, file).unwrap();
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Environment::collect([], variables, &path)
}

fn load(variables: &[(&str, &str)]) -> Result<Settings, Faults> {
    Settings::load(&environment(variables, ""))
}

fn faults(variables: &[(&str, &str)]) -> String {
    load(variables).unwrap_err().to_string()
}

#[test]
fn nothing_has_to_be_set() {
    let settings = load(&[]).unwrap();
    assert_eq!(settings.sources, [SourceKind::Rabbitmq]);
    assert_eq!(settings.intake.batch_size, 1_000);
    assert_eq!(settings.counting.dedupe_window, Duration::from_hours(48));
    assert_eq!(settings.counting.age_max, None);
    assert_eq!(settings.embedded, Path::new("pulse.db"));
    assert!(matches!(
        settings.stores_or_embedded("x", "y"),
        Ok(Stores { accumulator: Accumulator::Embedded(_), ledger: Ledger::Embedded(_) })
    ));
}

#[test]
fn every_setting_of_the_table_is_read_once() {
    let environment = environment(&[], "");
    let mut reader = Reader::new(&environment);
    let _ = Settings::read(&mut reader);
    let mut asked = reader.asked;
    asked.sort_unstable();
    let mut names: Vec<_> = definitions().map(|definition| definition.name).collect();
    names.sort_unstable();
    assert_eq!(asked, names);
}

#[test]
fn every_value_that_the_reference_shows_is_allowed() {
    for definition in definitions() {
        let value = definition.default.unwrap_or(definition.example);
        let mut variables = vec![(definition.name, value)];
        if definition.name == "RABBITMQ_BINDING" {
            variables.push(("RABBITMQ_EXCHANGE", "usage"));
        }
        assert!(load(&variables).is_ok(), "{}", definition.name);
    }
}

#[test]
fn the_defaults_are_those_that_the_adapters_recommend() {
    assert_eq!(
        definition("RABBITMQ_PREFETCH").default,
        Some(RabbitmqSettings::PREFETCH.to_string().as_str())
    );
    let (settings, limits) = (load(&[]).unwrap(), Limits::default());
    assert_eq!(format!("{:?}", settings.limits()), format!("{limits:?}"));
    assert_eq!(format!("{:?}", settings.decoder(&settings.ledger())), format!("{:?}", Decoder::default()));
}

#[test]
fn all_faults_are_named_at_once() {
    insta::assert_snapshot!(faults(&[
        ("PULSE_SOURCES", "rabbitmq,carrier-pigeon"),
        ("PULSE_FORMAT", "xml"),
        ("PULSE_SHARDS", "0"),
        ("PULSE_BATCH_SIZE", "4001"),
        ("PULSE_BATCH_LINGER", "5"),
        ("PULSE_MESSAGE_ITEMS_MAX", "-1"),
        ("PULSE_DRAIN_TIMEOUT", "forever"),
        ("PULSE_ANONYMOUS", "maybe"),
        ("PULSE_DEDUPE_WINDOW", "36d"),
        ("PULSE_AGE_MAX", "1s"),
        ("PULSE_AHEAD_MAX", "-1h"),
        ("FLUSH_SCHEDULE", "hourly"),
        ("RABBITMQ_URL", "http://user:hunter2@host"),
        ("RABBITMQ_QUEUE_TYPE", "priority"),
        ("RABBITMQ_BINDING", "#"),
        ("RABBITMQ_PREFETCH", "65536"),
        ("RABBITMQ_DEAD_LETTER_QUEUE", "pulses"),
        ("REDIS_URL", "127.0.0.1:6379/hunter2"),
        ("REDIS_DURABILITY", "none"),
        ("REDIS_IDENTITIES", "small"),
        ("LEDGER_URL", "mysql://user:hunter2@host/db"),
        ("LOG_LEVEL", "verbose"),
        ("LOG_FORMAT", "xml"),
        ("REDIS_URI", "redis://hunter2@host"),
    ]));
}

#[test]
fn a_stream_has_offsets_and_what_is_taken_out_of_queues_beside_it_is_none() {
    let url = ("RABBITMQ_URL", "amqp://h");
    let by_offset = ("PULSE_DEDUPE", "offset");
    assert!(faults(&[url, by_offset]).contains("a queue has no offsets"));
    let stream = ("RABBITMQ_QUEUE_TYPE", "stream");
    let exchange = ("RABBITMQ_EXCHANGE", "usage");
    let settings = load(&[url, by_offset, stream, exchange]).unwrap();
    assert_eq!(settings.rabbitmq().unwrap().queue_type, QueueType::Stream);
    assert_eq!(settings.archive_broker("x", "y").unwrap().queue_type, QueueType::Quorum);
    let long = "x".repeat(201);
    assert!(faults(&[url, stream, ("RABBITMQ_QUEUE", &long)]).contains("RABBITMQ_QUEUE: is too long"));
    assert!(load(&[url, ("RABBITMQ_QUEUE", &long)]).is_ok());
}

#[test]
fn a_name_that_is_nearly_ours_is_a_fault_and_any_other_is_left_alone() {
    for (name, ours) in [
        ("REDIS_URI", "REDIS_URL"),
        ("RABITMQ_URL", "RABBITMQ_URL"),
        ("RABBITMQ_QUEUE_TPYE", "RABBITMQ_QUEUE_TYPE"),
        ("PULSE_SOURCE", "PULSE_SOURCES"),
        ("DATABASE_URI", "DATABASE_URL"),
        ("KAFKA_BROKER", "KAFKA_BROKERS"),
    ] {
        let said = faults(&[(name, "redis://secret")]);
        assert!(said.contains(&format!("{name}: is not a setting: did you mean {ours}?")), "{said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let injected = [
        ("REDIS_PORT", "tcp://10.0.0.1:6379"),
        ("REDIS_HOST", "redis"),
        ("REDIS_SERVICE_HOST", "10.0.0.1"),
        ("RABBITMQ_NODENAME", "rabbit"),
        ("RABBITMQ_USER", "x"),
        ("POSTGRES_URL", "x"),
        ("PULSE_SERVER", "unix:/run/pulse"),
        ("KAFKA_PORT", "9092"),
        ("HTTP_PROXY", "x"),
        ("HTTP_PORT", "80"),
        ("HOME", "/root"),
    ];
    assert!(load(&injected).is_ok());
}

#[test]
fn the_archive_has_a_queue_and_a_group_of_its_own() {
    let broker = ("RABBITMQ_URL", "amqp://host");
    let settings = load(&[broker, ("RABBITMQ_EXCHANGE", "x"), ("KAFKA_BROKERS", "h:1")]).unwrap();
    let queue = settings.archive_broker("x", "y").unwrap();
    assert_eq!(
        (&*queue.queue, queue.prefetch, queue.exchange.as_deref()),
        ("pulses.archive", 8_000, Some("x"))
    );
    assert_eq!(settings.archive_kafka("x", "y").unwrap().group, "pulse-ingestor-archive");

    let fault = load(&[broker]).unwrap().archive_broker("app --archive", "y").unwrap_err().to_string();
    assert!(fault.contains("RABBITMQ_EXCHANGE") && fault.contains("ARCHIVE_QUEUE"), "{fault}");
    let fed = load(&[broker, ("ARCHIVE_QUEUE", "q"), ("ARCHIVE_BATCH_SIZE", "32000")]).unwrap();
    assert_eq!(
        fed.archive_broker("x", "y").map(|broker| (broker.queue, broker.prefetch)),
        Ok(("q".into(), 64_000))
    );
    assert!(
        faults(&[broker, ("ARCHIVE_QUEUE", "pulses")])
            .contains("ARCHIVE_QUEUE: is a queue that the worker uses")
    );
    assert!(
        faults(&[("KAFKA_BROKERS", "h:1"), ("ARCHIVE_GROUP", "pulse-ingestor")])
            .contains("ARCHIVE_GROUP: is the group")
    );
}

#[test]
fn secrets_are_never_printed() {
    let settings = load(&[
        ("RABBITMQ_URL", "amqp://user:hunter2@host"),
        ("REDIS_URL", "redis://:hunter2@host"),
        ("LEDGER_URL", "postgres://user:hunter2@host/db"),
        ("CLICKHOUSE_URL", "http://user:hunter2@host"),
    ])
    .unwrap();
    let stores = settings.stores("app --worker", "").unwrap();
    assert!(
        matches!(stores.accumulator, Accumulator::Redis(_)) && matches!(stores.ledger, Ledger::Postgres(_))
    );
    let shown = format!("{settings:?} {settings:#?} {stores:?}");
    assert!(!shown.contains("hunter2"), "{shown}");
    let said = environment(&[], "LOG_LEVEL=info\nREDIS_URL redis://:hunter2@host\n").faults().to_vec();
    let said = format!("{said:?}");
    assert!(said.contains("line 2 is not NAME=value") && !said.contains("hunter2"), "{said}");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".env");
    fs::write(&path, "PULSE_DB=file\nLOG_LEVEL=debug\nLOG_FORMAT=json\nPULSE_SHARDS=3\n").unwrap();
    let variables = [("PULSE_DB", "environment"), ("LOG_LEVEL", "warn"), ("PULSE_SHARDS", "")];
    let variables = variables.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let found = Environment::collect([("PULSE_DB", "flag".to_owned())], variables, &path);
    let settings = Settings::load(&found).unwrap();
    assert_eq!(settings.embedded, Path::new("flag"));
    assert_eq!(settings.log.level, "warn");
    assert!(settings.log.json);
    assert_eq!(settings.counting.shards.get(), 8, "an empty value in the environment means: not set");
}

#[test]
fn database_url_stands_for_ledger_url() {
    let url = "postgres://u@h/d";
    assert!(matches!(load(&[("DATABASE_URL", url)]).unwrap().ledger(), Ledger::Postgres(_)));
    assert!(load(&[("DATABASE_URL", url), ("LEDGER_URL", url)]).is_ok());
    let said = faults(&[("DATABASE_URL", url), ("LEDGER_URL", "sqlite://x.db")]);
    assert!(said.contains("DATABASE_URL: differs from LEDGER_URL"), "{said}");
    let said = faults(&[("DATABASE_URL", "oracle://u:hunter2@h/d")]);
    assert!(said.contains("DATABASE_URL") && !said.contains("hunter2"), "{said}");
}

#[test]
fn a_mode_names_every_setting_that_it_lacks() {
    let lacking = |variables: &[(&str, &str)]| {
        let settings = load(variables).unwrap();
        settings.stores("app --worker", "use --standalone").map_err(|faults| faults.to_string())
    };
    let said = lacking(&[]).unwrap_err();
    assert!(
        said.contains("REDIS_URL: app --worker needs it") && said.contains("LEDGER_URL: app --worker"),
        "{said}"
    );
    assert!(said.contains("or use --standalone"), "{said}");
    let said = lacking(&[("LEDGER_URL", "postgres://u@h/d")]).unwrap_err();
    assert!(said.contains("REDIS_URL") && !said.contains("LEDGER_URL"), "{said}");
    let said = lacking(&[("REDIS_URL", "redis://h")]).unwrap_err();
    assert!(said.contains("LEDGER_URL") && !said.contains("REDIS_URL"), "{said}");
    let stores = lacking(&[("LEDGER_URL", "sqlite:///var/x.db")]).unwrap();
    assert!(matches!(stores.accumulator, Accumulator::Embedded(file) if file == Path::new("/var/x.db")));
    let said = load(&[]).unwrap().broker("app --worker", "use --standalone").unwrap_err().to_string();
    assert!(said.starts_with("RABBITMQ_URL: app --worker needs it"), "{said}");
}

#[test]
fn a_folder_of_json_files_is_a_ledger_before_which_redis_or_the_embedded_file_counts() {
    let stores = |variables: &[(&str, &str)]| load(variables).unwrap().stores("app --worker", "").unwrap();
    let folder = ("LEDGER_URL", "json:out/counts");
    for variables in
        [&[folder, ("PULSE_DB", "x.db")][..], &[("LEDGER_URL", "json://out/counts"), ("PULSE_DB", "x.db")]]
    {
        let Stores { accumulator, ledger } = stores(variables);
        assert!(matches!(&accumulator, Accumulator::Embedded(file) if file == Path::new("x.db")));
        assert!(matches!(&ledger, Ledger::Json(folder) if folder == Path::new("out/counts")));
        let decoder = load(variables).unwrap().decoder(&ledger);
        assert_eq!(decoder.sku_rule, application::decode::SkuRule::FileName);
    }
    let Stores { accumulator, ledger } = stores(&[folder, ("REDIS_URL", "redis://h")]);
    assert!(matches!(accumulator, Accumulator::Redis(_)) && matches!(ledger, Ledger::Json(_)));
    assert!(faults(&[("LEDGER_URL", "json:")]).contains("LEDGER_URL"));
}

#[test]
fn one_embedded_file_is_named_once() {
    let both = [("LEDGER_URL", "sqlite://a.db"), ("PULSE_DB", "b.db")];
    assert!(faults(&both).contains("PULSE_DB: names another file"));
    assert!(load(&[("LEDGER_URL", "sqlite://a.db"), ("PULSE_DB", "a.db")]).is_ok());
    assert!(load(&[both[0], both[1], ("REDIS_URL", "redis://h")]).is_ok());
}

#[test]
fn the_example_file_is_in_step_with_the_table() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../.env.example");
    let made = env_example();
    assert_eq!(
        fs::read_to_string(shipped).unwrap_or_default(),
        made,
        "make it anew: cargo run -p app -- settings --env-example > .env.example"
    );
    let uncommented: Vec<&str> = made
        .lines()
        .filter_map(|line| {
            line.strip_prefix('#').filter(|line| line.starts_with(|c: char| c.is_ascii_uppercase()))
        })
        .collect();
    let settings = Settings::load(&environment(&[], &uncommented.join("\n"))).unwrap();
    assert_eq!(settings.counting.flush_schedule.as_str(), "0 0 * * * *");
}

#[test]
fn the_reference_in_the_docs_is_in_step_with_the_table() {
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/settings.md");
    let reference = markdown();
    assert_eq!(
        fs::read_to_string(shipped).unwrap_or_default(),
        reference,
        "make it anew: cargo run -p app -- settings > docs/settings.md"
    );
    for definition in definitions() {
        assert!(reference.contains(&format!("### `{}`", definition.name)));
    }
}
