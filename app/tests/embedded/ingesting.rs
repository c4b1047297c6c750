//! `app ingest` counts every line once, whatever happens to it.

use crate::folder::{Folder, anonymous_lines, flights};
use flate2::{Compression, write::GzEncoder};
use std::{io::Write, thread::sleep, time::Duration};

#[test]
fn a_day_of_flights_comes_to_its_totals_and_a_second_time_changes_nothing() {
    let (folder, (file, totals)) = (Folder::new(), flights());
    let summary = folder.succeed(&["ingest", &file]);
    assert!(
        summary.starts_with("1662 lines read, 1662 pulses counted, 0 duplicates, 0 rejected"),
        "{summary}"
    );
    let again = folder.succeed(&["ingest", &file]);
    assert!(again.starts_with("1662 lines read, 0 pulses counted, 1662 duplicates, 0 rejected"), "{again}");
    assert_eq!(folder.billed(), totals);
    folder.succeed(&["ingest", &file]);
    assert_eq!(folder.billed(), totals, "a flush forgets no id");
}

#[test]
fn an_ingest_that_is_killed_and_repeated_counts_every_line_once() {
    let (folder, (lines, totals)) = (Folder::new(), anonymous_lines(60_000));
    folder.write("lines.ndjson", lines);
    let mut killed = 0;
    for attempt in 0..12 {
        let mut ingest =
            folder.start("ingest.log", &["ingest", "lines.ndjson"], &[("PULSE_BATCH_SIZE", "500")]);
        // Any moment will do; these are spread from the start of the program to its end.
        sleep(Duration::from_millis(10 + attempt * 45));
        killed += u32::from(ingest.kill().code().is_none());
    }
    assert!(killed >= 3, "only {killed} of 12 were killed before their end");
    let summary = folder.succeed(&["ingest", "lines.ndjson"]);
    assert!(summary.contains("60000 lines read") && summary.contains(" 0 rejected"), "{summary}");
    assert_eq!(folder.billed(), totals);
}

#[test]
fn an_ingest_that_is_told_to_stop_says_that_it_did_not_reach_the_end() {
    let (folder, (lines, totals)) = (Folder::new(), anonymous_lines(60_000));
    folder.write("lines.ndjson", lines);
    // A batch of one line each: it takes much longer than the signal does.
    let mut ingest = folder.start("ingest.log", &["ingest", "lines.ndjson"], &[("PULSE_BATCH_SIZE", "1")]);
    crate::folder::wait_until("the file is made", || folder.path("pulse.db").exists());
    assert_eq!(ingest.terminate(), Some(1), "{}", ingest.log());
    assert!(ingest.log().contains("repeat the command to go on"), "{}", ingest.log());
    folder.succeed(&["ingest", "lines.ndjson"]);
    assert_eq!(folder.billed(), totals);
}

#[test]
fn a_file_that_has_grown_adds_its_new_lines_and_another_file_all_of_its_own() {
    let (folder, (lines, totals)) = (Folder::new(), anonymous_lines(700));
    let (start, _) = lines.split_at(lines.len() / 700 * 250);
    folder.write("a.ndjson", start.trim_end());
    folder.succeed(&["ingest", "a.ndjson"]);
    folder.write("a.ndjson", &lines);
    folder.succeed(&["ingest", "./a.ndjson"]);
    assert_eq!(folder.billed(), totals);
    folder.write("b.ndjson", &lines);
    let summary = folder.succeed(&["ingest", "b.ndjson"]);
    assert!(summary.contains("700 pulses counted, 0 duplicates"), "{summary}");
}

#[test]
fn standard_input_gzip_and_several_files_are_taken() {
    let (folder, (file, totals)) = (Folder::new(), flights());
    let lines = std::fs::read_to_string(&file).unwrap();
    let (first, second) = lines.split_at(lines.match_indices('\n').nth(800).unwrap().0 + 1);
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(first.replace('\n', "\r\n").as_bytes()).unwrap();
    folder.write("first", packed.finish().unwrap());
    let ran = folder.run_with(&["ingest", "first", "-"], &[], second.trim_end());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.starts_with("1662 lines read, 1662 pulses counted"), "{ran:?}");
    assert_eq!(folder.billed(), totals);
}

#[test]
fn every_bad_line_is_listed_with_its_number_and_reason_and_every_good_one_counts() {
    let folder = Folder::new();
    let pulse = |tenant: &str, amount: &str| {
        format!(r#"{{"tenant":"{tenant}","product_sku":"s","used_amount":{amount},"use_unity":"KB"}}"#)
    };
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let lines: Vec<Vec<u8>> = vec![
        pulse("a:b", "9007199254740993").into(),
        b"not json".to_vec(),
        pulse("}{", "\"0.000000001\"").into(),
        pulse("t", "NaN").into(),
        pulse("t", "1e400").into(),
        pulse("t", "-1").into(),
        pulse("t", "0").into(),
        pulse("t", "0.1234567891").into(),
        b"".to_vec(),
        pulse("t", &"9".repeat(400)).into(),
        pulse("", "1").into(),
        pulse("a\\u0000b", "1").into(),
        pulse(&"x".repeat(1_000_000), "1").into(),
        pulse(&"x".repeat(1_100_000), "1").into(),
        b"{\"tenant\":\"\xff\xfe\"}".to_vec(),
        pulse("t", "1").replace("\"tenant\"", "\"tenant\":\"t\",\"tenant\"").into(),
        deep.into(),
        b"{\"tenant\":\"t\"}".to_vec(),
        format!("[{},{{\"tenant\":7}},{}]", pulse("array", "0.9"), pulse("array", "0.1")).into(),
        b"\0\0".to_vec(),
        pulse("*?[", "1").into(),
    ];
    folder.write("bad.ndjson", lines.join(&b'\n'));
    let ran = folder.run(&["ingest", "bad.ndjson"]);
    assert_eq!(ran.code, Some(0), "every line was dealt with: {ran:?}");
    let mut listed: Vec<(&str, &str)> = ran
        .out
        .lines()
        .filter_map(|line| line.strip_prefix("rejected bad.ndjson:"))
        .filter_map(|line| line.split_once(": "))
        .map(|(place, reason)| (place, reason.split(':').next().unwrap()))
        .collect();
    listed.sort_by_key(|(place, _)| place.split(',').next().unwrap().parse::<u32>().unwrap());
    let expected = [
        ("2", "malformed"),
        ("4", "malformed"),
        ("5", "out_of_range"),
        ("6", "not_positive"),
        ("7", "not_positive"),
        ("8", "too_precise"),
        ("10", "out_of_range"),
        ("11", "invalid_field"),
        ("12", "invalid_field"),
        ("13", "invalid_field"),
        ("14", "malformed"),
        ("15", "malformed"),
        ("16", "malformed"),
        ("17", "malformed"),
        ("18", "missing_field"),
        ("19, item 1", "invalid_field"),
        ("20", "malformed"),
    ];
    assert_eq!(listed, expected);
    assert!(ran.out.contains("20 lines read, 5 pulses counted, 0 duplicates, 17 rejected"), "{}", ran.out);
    assert!(ran.out.len() < 10_000, "no long piece of the input is printed");
    let usage = folder.succeed(&["usage", "--csv"]);
    for (tenant, amount, pulses) in
        [("a:b", "9007199254740993", 1), ("}{", "0.000000001", 1), ("array", "1", 2), ("*?[", "1", 1)]
    {
        let end = format!(",{amount},{pulses},pending");
        assert!(
            usage.lines().any(|line| line.starts_with(tenant) && line.ends_with(&end)),
            "{tenant}: {usage}"
        );
    }
    let again = folder.succeed(&["ingest", "bad.ndjson"]);
    assert!(again.contains("0 pulses counted, 5 duplicates, 17 rejected"), "{again}");
}

#[test]
fn an_id_that_comes_again_with_other_content_is_listed_as_a_conflict() {
    let folder = Folder::new();
    let pulse = |amount: &str| {
        format!(r#"{{"id":"same","tenant":"t","product_sku":"s","used_amount":{amount},"use_unity":"KB"}}"#)
    };
    folder.write("a", [pulse("1"), pulse("1.0"), pulse("2")].join("\n"));
    let out = folder.succeed(&["ingest", "a"]);
    assert!(out.contains("rejected a:3: conflict: "), "{out}");
    assert!(out.contains("3 lines read, 1 pulses counted, 1 duplicates, 1 rejected"), "{out}");
}

#[test]
fn input_that_cannot_be_read_is_a_failure_that_names_it() {
    let folder = Folder::new();
    let ran = folder.run(&["ingest", "nowhere.ndjson"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.errors.contains("nowhere.ndjson"), "{ran:?}");
    assert!(!folder.path("pulse.db").exists(), "nothing was begun");
    folder.write(
        "pulse.db",
        "this is no database, and much longer than a header of a hundred bytes would be, is it not",
    );
    folder.write("a", "{}");
    let ran = folder.run(&["ingest", "a"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.errors.contains("pulse.db"), "{ran:?}");
}

/// The crash point that the chaos harness does not come by: it takes identities that are older than an hour.
#[cfg(feature = "failpoints")]
#[test]
fn a_death_while_forgotten_identities_are_removed_leaves_them_and_the_books_to_the_next_flush() {
    let (folder, (file, totals)) = (Folder::new(), flights());
    folder.succeed(&["ingest", &file]);
    let ask = |query: &str| {
        let program = "import sqlite3, sys\nbooks = sqlite3.connect('pulse.db')\nprint(books.execute(sys.argv[1]).fetchall())\nbooks.commit()";
        let mut python = std::process::Command::new("python3");
        let output = python.args(["-c", program, query]).current_dir(folder.path("")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    ask("INSERT INTO counting_buckets VALUES (1000, 0, 0, 1, 1, 0)");
    ask("INSERT INTO counting_identities SELECT 1000, randomblob(16), fingerprint FROM counting_identities");
    let forgotten = || ask("SELECT count(*) FROM counting_identities WHERE bucket = 1000");
    assert_eq!(forgotten(), "[(1662,)]\n");
    let dying = folder.run_with(&["flush"], &[("FAILPOINTS", "bucket_drop=return")], "");
    assert_eq!((dying.code, forgotten().as_str()), (None, "[(1662,)]\n"), "{dying:?}");
    assert_eq!(folder.billed(), totals);
    assert_eq!(forgotten(), "[(0,)]\n");
}
