//! Totals as the ledger holds them, read without any code of the program.

use std::{collections::BTreeMap, process::Command};

/// Totals as the ledger holds them: (tenant, SKU, unit, hour) to (amount, pulses), amounts without trailing zeros.
pub(crate) type Totals = BTreeMap<[String; 4], (String, u64)>;

/// What a PostgreSQL ledger holds, read by `psql`.
pub(crate) fn ledger_of(url: &str) -> Totals {
    let query = "select tenant, product_sku, use_unity, \
         to_char(window_start at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'), trim_scale(used_amount), \
         pulse_count from hourly_usage";
    let output = Command::new("psql")
        .args(["--no-psqlrc", "--csv", "--tuples-only", "--command", query, url])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    totals(&output.stdout)
}

/// Reads totals from rows of six columns, with or without the header.
pub(crate) fn totals(csv: &[u8]) -> Totals {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(csv);
    let mut totals = Totals::new();
    for row in reader.records() {
        let row = row.unwrap();
        if &row[0] == "tenant" && &row[5] == "pulse_count" {
            continue;
        }
        let key = [0, 1, 2, 3].map(|column| row[column].to_owned());
        let earlier = totals.insert(key.clone(), (row[4].to_owned(), row[5].parse().unwrap()));
        assert_eq!(earlier, None, "{key:?} stands twice");
    }
    totals
}
