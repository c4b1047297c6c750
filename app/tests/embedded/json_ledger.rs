//! `LEDGER_URL=json:DIR`: a file for each product, whatever is killed and whoever else flushes.

use crate::folder::Folder;
use std::{collections::BTreeMap, fmt::Write, fs, thread::sleep, time::Instant};

const JSON: [(&str, &str); 1] = [("LEDGER_URL", "json:out/counts")];
const ROUNDS: u32 = 40;
const LINES_A_ROUND: u32 = 60;

type Counts = BTreeMap<String, BTreeMap<String, u64>>;

/// Lines of one pulse each, and what they add.
fn lines(round: u32, expected: &mut Counts) -> String {
    let mut lines = String::new();
    for number in 0..LINES_A_ROUND {
        let sku = ["created", "updated", "deleted"][(number % 3) as usize];
        let tenant = format!("john.doe.{}", (round * 7 + number) % 500);
        writeln!(
            lines,
            "{{\"id\":\"{round}-{number}\",\"tenant\":\"{tenant}\",\"product_sku\":\"{sku}\",\"used_amount\":1,\
             \"use_unity\":\"event\",\"occurred_at\":\"2026-01-10T{:02}:00:00Z\"}}",
            round % 24
        )
        .unwrap();
        *expected.entry(sku.to_owned()).or_default().entry(tenant).or_default() += 1;
    }
    lines
}

fn counts(folder: &Folder, skus: &Counts) -> Counts {
    let read = |sku: &String| {
        let text = fs::read(folder.path(&format!("out/counts/{sku}.json"))).unwrap();
        (sku.clone(), serde_json::from_slice(&text).unwrap())
    };
    skus.keys().map(read).collect()
}

#[test]
fn flushes_that_are_killed_at_any_point_and_run_two_at_once_lose_and_double_nothing() {
    let (folder, mut expected) = (Folder::new(), Counts::new());
    let run = |arguments: &[&str], input: &str| {
        let ran = folder.run_with(arguments, &JSON, input);
        assert_eq!(ran.code, Some(0), "{ran:#?}");
        ran.out
    };
    run(&["ingest", "-"], &lines(0, &mut expected));
    let start = Instant::now();
    run(&["flush"], "");
    let usual = start.elapsed();
    assert_eq!(counts(&folder, &expected), expected);

    let mut killed = 0;
    for round in 1..ROUNDS {
        run(&["ingest", "-"], &lines(round, &mut expected));
        let mut first = folder.start("first.log", &["flush"], &JSON);
        let second = (round % 3 == 0).then(|| folder.start("second.log", &["flush"], &JSON));
        sleep(usual * (round % 13) / 12);
        killed += u32::from(first.kill().code().is_none());
        if let Some(mut second) = second {
            assert_eq!(second.exit_code(), Some(0), "{}", second.log());
        }
    }
    assert!(killed > ROUNDS / 4, "only {killed} flushes were killed before their end");
    run(&["flush"], "");
    assert_eq!(counts(&folder, &expected), expected);
    let last = run(&["usage", "--billed"], "");
    assert!(last.contains(&format!("{} pulses billed", ROUNDS * LINES_A_ROUND)), "{last}");
    // Everything once more: it is known, and nothing is added.
    for round in 0..ROUNDS {
        run(&["ingest", "-"], &lines(round, &mut Counts::new()));
    }
    run(&["flush"], "");
    assert_eq!(counts(&folder, &expected), expected);
}

#[test]
fn a_product_that_cannot_name_a_file_is_refused_and_the_rest_counts_and_is_told_apart() {
    let folder = Folder::new();
    let line = |id: u8, sku: &str| {
        format!(
            "{{\"id\":\"{id}\",\"tenant\":\"t\",\"product_sku\":\"{sku}\",\"used_amount\":0.1,\"use_unity\":\"u\"}}\n"
        )
    };
    let input = [line(1, "fine"), line(2, "../../escaped"), line(3, "fine")].concat();
    assert!(folder.run_with(&["usage", "--billed"], &JSON, "").errors.contains("nothing was counted yet"));
    assert!(!folder.path("out").exists(), "looking makes nothing");
    let ran = folder.run_with(&["ingest", "-"], &JSON, &input);
    assert_eq!(ran.code, Some(0), "{ran:#?}");
    let told = ran.out + &ran.errors;
    assert!(told.contains("invalid_field") && told.contains("product_sku holds a slash"), "{told}");
    let pending = folder.run_with(&["usage"], &JSON, "").out;
    assert!(pending.contains("0 pulses billed, 2 not yet flushed"), "{pending}");
    assert_eq!(folder.run_with(&["flush"], &JSON, "").code, Some(0));
    assert_eq!(fs::read_to_string(folder.path("out/counts/fine.json")).unwrap(), "{\"t\":0.2}\n");
    assert!(!folder.path("escaped.json").exists());
}

#[test]
fn files_that_fell_behind_are_caught_up_with_by_the_next_flush() {
    let folder = Folder::new();
    let mut expected = Counts::new();
    folder.run_with(&["ingest", "-"], &JSON, &lines(0, &mut expected));
    assert_eq!(folder.run_with(&["flush"], &JSON, "").code, Some(0));
    fs::remove_file(folder.path("out/counts/updated.json")).unwrap();
    folder.write("out/counts/created.json", "{}");
    assert_eq!(folder.run_with(&["flush"], &JSON, "").code, Some(0));
    assert_eq!(counts(&folder, &expected), expected);
}
