//! What the command line says, and what it says when it is used wrongly.

use crate::folder::{Folder, flights};

#[test]
fn every_command_explains_itself_with_an_example() {
    let folder = Folder::new();
    for command in [
        "",
        "ingest",
        "usage",
        "flush",
        "audit",
        "explain",
        "migrate",
        "populate",
        "health",
        "settings",
        "mappings test",
    ] {
        let arguments: Vec<&str> = command.split_whitespace().chain(["--help"]).collect();
        let help = folder.succeed(&arguments);
        assert!(help.contains("Example"), "{help}");
        let name = if command.is_empty() {
            "help".to_owned()
        } else {
            format!("help_{}", command.replace(' ', "_"))
        };
        insta::assert_snapshot!(name, help);
    }
}

#[test]
fn wrong_usage_is_told_apart_from_failure_by_the_exit_code() {
    let folder = Folder::new();
    for arguments in [
        &[][..],
        &["--wroker"],
        &["--standalone", "--worker"],
        &["--standalone", "usage"],
        &["--cron", "--until-idle", "5s"],
        &["--worker", "--until-idle", "soon"],
        &["--archive", "--print-pulses"],
        &["--cron", "--print-pulses"],
        &["ingest"],
        &["usage", "--json", "--csv"],
        &["usage", "--from", "2013-01-01T10:30:00Z"],
        &["usage", "--tenant", ""],
        &["populate"],
        &["populate", "--to", "rabbitmq", "--workers-number", "0"],
    ] {
        let ran = folder.run(arguments);
        assert_eq!(ran.code, Some(2), "app {arguments:?}: {ran:?}");
        assert!(ran.out.is_empty() && !ran.errors.is_empty(), "app {arguments:?}: {ran:?}");
    }
    assert!(folder.run(&[]).errors.contains("app --standalone"), "a way to begin is shown");
}

#[test]
fn all_faults_of_all_origins_are_named_at_once() {
    let folder = Folder::new();
    folder.write(".env", "PULSE_SHARDS=0\nLEGDER_URL='postgres://u:hunter2@h/d'\nOTHER=fine\n");
    let settings = [("REDIS_URI", "redis://:hunter2@h"), ("REDIS_PORT", "tcp://10.0.0.1:6379")];
    let ran = folder.run_with(&["--standalone", "--log-level", "loud"], &settings, "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for name in ["PULSE_SHARDS", "LEGDER_URL", "REDIS_URI", "LOG_LEVEL"] {
        assert!(ran.errors.contains(&format!("\n  {name}: ")), "{name}: {}", ran.errors);
    }
    assert!(ran.errors.contains("4 faults") && !ran.errors.contains("hunter2"), "{}", ran.errors);
}

#[test]
fn a_mode_names_what_it_lacks_and_the_way_out() {
    let folder = Folder::new();
    for (arguments, names) in [
        (&["--worker"][..], &["RABBITMQ_URL", "REDIS_URL", "LEDGER_URL"][..]),
        (&["--cron"], &["REDIS_URL", "LEDGER_URL"]),
        (&["populate", "--to", "rabbitmq"], &["RABBITMQ_URL"]),
        #[cfg(feature = "kafka")]
        (&["populate", "--to", "kafka"], &["KAFKA_BROKERS"]),
    ] {
        let ran = folder.run(arguments);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        for name in names {
            assert!(ran.errors.contains(&format!("\n  {name}: app {}", arguments[0])), "{}", ran.errors);
        }
    }
    assert!(folder.run(&["--worker"]).errors.contains("--standalone"));
    let half = folder.run_with(&["usage"], &[("LEDGER_URL", "postgres://u@127.0.0.1:1/d")], "");
    assert!(
        half.code == Some(2) && half.errors.contains("REDIS_URL") && half.errors.contains("--billed"),
        "{half:?}"
    );
    let ingest = folder.run_with(&["ingest", "-"], &[("REDIS_URL", "redis://127.0.0.1:1")], "");
    assert!(ingest.code == Some(2) && ingest.errors.contains("RABBITMQ_URL"), "{ingest:?}");
}

#[test]
fn filters_narrow_the_totals_and_a_look_makes_no_file() {
    let (folder, (file, _)) = (Folder::new(), flights());
    let nothing = folder.run(&["usage", "--csv"]);
    assert!(nothing.code == Some(0) && nothing.errors.contains("nothing was counted yet"), "{nothing:?}");
    assert!(!folder.path("pulse.db").exists());
    folder.succeed(&["ingest", &file]);
    let from = ["--from", "2013-01-01T20:00:00Z", "--to", "2013-01-01T23:00:00+02:00"];
    let filter = ["--tenant", "UA", "--product-sku", "EWR-IAH", "--use-unity", "km"];
    let out = folder.succeed(&[&["usage", "--csv"], &filter[..], &from[..]].concat());
    let row = "UA,EWR-IAH,km,2013-01-01T20:00:00Z,2253.0816,1,pending\n";
    assert_eq!(
        out,
        format!("tenant,product_sku,use_unity,window_start,used_amount,pulse_count,status\n{row}")
    );
    let json = folder.succeed(&[&["usage", "--json"], &filter[..], &from[..]].concat());
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["used_amount"], "2253.0816", "an amount is text, so that no reader rounds it");
    assert_eq!(value["status"], "pending");
}

#[test]
fn the_reference_is_printed_without_any_settings() {
    let folder = Folder::new();
    folder.write(".env", "PULSE_SHARDS=0\n");
    assert!(folder.succeed(&["settings"]).contains("### `PULSE_SHARDS`"));
    assert!(folder.succeed(&["settings", "--env-example"]).contains("#PULSE_SHARDS=8\n"));
}

#[test]
fn a_mapping_is_chosen_tried_and_checked_with_the_other_settings() {
    let folder = Folder::new();
    folder.write("sample.ndjson", "{\"customer\":\"A\"}\n{\"customer\":7.5}\n");
    let tried = folder.run(&["mappings", "test", "task", "sample.ndjson"]);
    assert!(tried.code == Some(1) && tried.out.contains("2: refused: invalid_field: tenant"), "{tried:?}");
    folder.write("sample.ndjson", "{\"customer\":\"A\"}\n{\"customer\":\"B\"}\n");
    assert!(folder.succeed(&["mappings", "test", "task", "sample.ndjson"]).contains("2: counts"));
    assert!(folder.succeed(&["mappings", "list"]).contains("purchase"));

    let ran = folder.run_with(&["ingest", "sample.ndjson"], &[("PULSE_FORMAT", "task")], "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(folder.succeed(&["usage", "--csv", "--tenant", "B"]).contains("B,task,task,"));

    folder.write("own.toml", "[pulse]\ntenant = { pointer = \"customer\" }\n");
    let settings = [("PULSE_FORMAT", "own.toml"), ("PULSE_SHARDS", "0")];
    let ran = folder.run_with(&["usage"], &settings, "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    for fault in [
        "PULSE_FORMAT: own.toml, line 2: tenant",
        "PULSE_FORMAT: own.toml, line 1: use_unity is missing",
        "PULSE_SHARDS: ",
    ] {
        assert!(ran.errors.contains(fault), "{fault}: {}", ran.errors);
    }
}
