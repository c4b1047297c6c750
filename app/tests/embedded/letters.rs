//! Dead letters of the embedded file, from the refusal to the count.

use crate::folder::Folder;
use serde_json::Value;

const STRICT: &[(&str, &str)] = &[("PULSE_AGE_MAX", "1h")];

fn line(tenant: &str, id: u32) -> String {
    format!(
        r#"{{"id":"{id}","tenant":"{tenant}","product_sku":"s","use_unity":"u","used_amount":2,"occurred_at":"2026-01-10T12:00:00Z"}}"#
    )
}

fn listed(folder: &Folder, arguments: &[&str]) -> Value {
    serde_json::from_str(&folder.succeed(&[&["dead-letters", "list", "--json"], arguments].concat())).unwrap()
}

/// Two lines that are too old, and one that is nothing.
fn refused() -> Folder {
    let folder = Folder::new();
    folder.write("lines.ndjson", format!("{}\n{}\n{{\"tenant\":\n", line("a", 1), line("b", 2)));
    let ran = folder.run_with(&["ingest", "lines.ndjson"], STRICT, "");
    assert_eq!(ran.code, Some(0), "{ran:?}");
    folder
}

#[test]
fn what_was_refused_goes_back_to_the_inbox_and_counts_once() {
    let folder = refused();
    let all = listed(&folder, &[]);
    assert_eq!(all["places"][0]["reasons"], serde_json::json!({"malformed": 1, "too_old": 2}), "{all}");
    let of_b = listed(&folder, &["--tenant", "b", "--source", "file"]);
    let id = of_b["letters"][0]["id"].as_str().unwrap();
    let shown = folder.succeed(&["dead-letters", "show", id]);
    assert!(shown.contains("too_old") && shown.contains(&line("b", 2)), "{shown}");
    assert_eq!(folder.succeed(&["dead-letters", "show", id, "--raw"]), line("b", 2));
    let whole: Value =
        serde_json::from_str(&folder.succeed(&["dead-letters", "show", id, "--json"])).unwrap();
    assert_eq!((&whole["tenant"], &whole["replays"]), (&"b".into(), &0.into()), "{whole}");

    let sent = folder.succeed(&["dead-letters", "replay", "--reason", "too_old"]);
    assert_eq!(sent, "embedded file: 2 of 3 letters sent back\n");
    let waiting = folder.succeed(&["webhooks", "list", "--source", "dead-letters"]);
    assert_eq!(waiting.matches("received").count(), 2, "{waiting}");
    folder.succeed(&["--standalone", "--until-idle", "300ms"]);
    let billed = "tenant,product_sku,use_unity,window_start,used_amount,pulse_count\n\
        a,s,u,2026-01-10T12:00:00Z,2,1\nb,s,u,2026-01-10T12:00:00Z,2,1\n";
    assert_eq!(folder.billed(), billed);
    // The file itself counts nothing more.
    folder.succeed(&["ingest", "lines.ndjson"]);
    assert_eq!(folder.billed(), billed);
}

#[test]
fn poison_stays_after_three_returns_and_is_discarded_with_a_word() {
    let folder = refused();
    for round in 1..=3 {
        folder.succeed(&["dead-letters", "replay", "--reason", "malformed"]);
        folder.succeed(&["--standalone", "--until-idle", "300ms"]);
        assert_eq!(listed(&folder, &["--reason", "malformed"])["letters"][0]["replays"], round);
    }
    let stays = folder.succeed(&["dead-letters", "replay", "--reason", "malformed"]);
    assert!(stays.contains("0 of 3 letters sent back") && stays.contains("1 came back 3 times"), "{stays}");
    let forced = folder.succeed(&["dead-letters", "replay", "--reason", "malformed", "--force", "--dry-run"]);
    assert!(forced.contains("1 of 3 letters would be sent back"), "{forced}");
    let unasked = folder.run(&["dead-letters", "discard", "--reason", "malformed"]);
    assert!(unasked.code == Some(2) && unasked.errors.contains("add --yes"), "{unasked:?}");
    for wrong in [&["discard", "--yes"][..], &["replay"], &["replay", "--all", "--reason", "x"]] {
        let ran = folder.run(&[&["dead-letters"], wrong].concat());
        assert!(ran.code == Some(2) && ran.errors.contains("say which letters"), "{ran:?}");
    }
    assert_eq!(listed(&folder, &[])["places"][0]["letters"], 3);
    let gone = folder.succeed(&["dead-letters", "discard", "--reason", "malformed", "--yes"]);
    assert_eq!(gone, "embedded file: 1 of 3 letters discarded\n");
    // Each return was an event of the inbox that has failed.
    let unasked = folder.run(&["webhooks", "discard", "--failed"]);
    assert!(unasked.code == Some(2) && unasked.errors.contains("add --yes"), "{unasked:?}");
    assert_eq!(folder.succeed(&["webhooks", "discard", "--failed", "--yes"]), "3 events are gone\n");
    let none = folder.run(&["webhooks", "discard", "1"]);
    assert!(none.code == Some(1) && none.errors.contains("there is no event 1"), "{none:?}");
}

#[test]
fn lines_of_another_format_stay_and_nothing_is_made_by_looking() {
    let folder = refused();
    let mapped = folder.run_with(&["dead-letters", "replay", "--all"], &[("PULSE_FORMAT", "task")], "");
    assert!(mapped.out.contains("0 of 3") && mapped.out.contains("3 cannot be sent back"), "{mapped:?}");
    let empty = Folder::new();
    assert_eq!(empty.succeed(&["dead-letters", "list"]), "");
    assert!(!empty.path("pulse.db").exists());
    let none = empty.run(&["dead-letters", "show", "x"]);
    assert!(none.code == Some(1) && none.errors.contains("there is no letter x"), "{none:?}");
}

#[test]
fn letters_stay_for_their_retention() {
    let folder = refused();
    folder.succeed(&["--standalone", "--until-idle", "300ms"]);
    assert_eq!(listed(&folder, &[])["places"][0]["letters"], 3);
    let bad = folder.run_with(&["dead-letters", "list"], &[("DEAD_LETTER_RETENTION", "1s")], "");
    assert!(bad.code == Some(2) && bad.errors.contains("DEAD_LETTER_RETENTION"), "{bad:?}");
}
