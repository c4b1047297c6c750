//! What `app audit` and `app explain` say of the embedded file.

use crate::folder::{Folder, flights};

#[test]
fn the_books_of_a_file_hold_before_between_and_after_flushes() {
    let folder = Folder::new();
    assert!(folder.run(&["audit"]).errors.contains("nothing was counted yet"));
    let (file, _) = flights();
    for _ in 0..2 {
        folder.succeed(&["ingest", &file]);
        let told = folder.succeed(&["audit"]);
        assert!(told.contains("The books hold: 10 checks."), "{told}");
        folder.succeed(&["flush"]);
    }
    let report: serde_json::Value = serde_json::from_str(&folder.succeed(&["audit", "--json"])).unwrap();
    assert_eq!((&report["outcome"], report["checks"].as_array().map(Vec::len)), (&"holds".into(), Some(10)));
    assert_eq!(report["checks"][5]["check"], "counted");
}

#[test]
fn changed_books_are_told_by_the_exit_code_and_so_is_a_store_that_is_away() {
    let folder = Folder::new();
    let books = [("LEDGER_URL", "json:books")];
    let pulse = r#"{"id":"1","tenant":"me","product_sku":"s","used_amount":7,"use_unity":"KB"}"#;
    for command in [&["ingest", "-"][..], &["flush"]] {
        assert_eq!(folder.run_with(command, &books, pulse).code, Some(0));
    }
    assert_eq!(folder.run_with(&["audit"], &books, "").code, Some(0));
    let state = folder.path("books/.pulse-ledger.json");
    let whole = std::fs::read_to_string(&state).unwrap();
    assert!(whole.contains("\"7\""), "{whole}");
    std::fs::write(&state, whole.replacen("\"7\"", "\"8\"", 1)).unwrap();
    let ran = folder.run_with(&["audit", "--json"], &books, "");
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let report: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(report["outcome"], "broken", "{ran:?}");
    assert!(ran.out.contains("do not come to what its flushes wrote"), "{ran:?}");

    let away = [("LEDGER_URL", "json:books"), ("REDIS_URL", "redis://127.0.0.1:1")];
    let ran = folder.run_with(&["audit"], &away, "");
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(ran.errors.contains("nothing can be told") && ran.errors.contains("Redis"), "{ran:?}");
}

#[test]
fn a_pulse_is_explained_as_counted_rejected_or_unknown() {
    let folder = Folder::new();
    let unknown = folder.succeed(&["explain", "1"]);
    assert!(unknown.starts_with("unknown   "), "{unknown}");
    let pulse = |id: &str, tenant: &str, amount: &str| {
        format!(
            "{{\"id\":\"{id}\",\"tenant\":\"{tenant}\",\"product_sku\":\"s\",\"used_amount\":{amount},\"use_unity\":\"KB\"}}\n"
        )
    };
    let lines = [
        pulse("1", "me", "1"),
        pulse("1", "me", "1"),
        pulse("2", "me", "0"),
        pulse("1", "you", "3"),
        pulse("1", "you", "4"),
    ];
    let ran = folder.run_with(&["ingest", "-"], &[], &lines.concat());
    assert_eq!(ran.code, Some(0), "{ran:?}");
    folder.succeed(&["flush"]);

    let explain = |arguments: &[&str]| {
        let out = folder.succeed(&[&["explain", "--json"], arguments].concat());
        serde_json::from_str::<serde_json::Value>(&out).unwrap()
    };
    let counted = explain(&["1", "--tenant", "me"]);
    assert_eq!(
        (&counted["fate"], &counted["rejected"]),
        (&"counted".into(), &serde_json::json!([])),
        "{counted}"
    );
    assert_eq!(
        (&counted["counted"][0]["identity"], &counted["counted"][0]["tenant"]),
        (&"id".into(), &"me".into())
    );
    let conflict = explain(&["1", "--tenant", "you"]);
    assert_eq!(
        (&conflict["fate"], &conflict["rejected"][0]["reason"]),
        (&"counted".into(), &"conflict".into())
    );
    let refused = explain(&["2", "--tenant", "me"]);
    assert_eq!(
        (&refused["fate"], &refused["rejected"][0]["reason"]),
        (&"rejected".into(), &"not_positive".into())
    );
    let by_letter = explain(&[refused["rejected"][0]["letter"].as_str().unwrap()]);
    assert_eq!(by_letter["rejected"][0]["reason"], "not_positive", "{by_letter}");
    assert_eq!(explain(&["3", "--tenant", "me"])["fate"], "unknown");
    let of_all = explain(&["1"]);
    assert_eq!((of_all["counted"].as_array().map(Vec::len), &of_all["tenants_asked"]), (Some(2), &2.into()));
    let told = folder.succeed(&["explain", "1", "--tenant", "me"]);
    assert!(told.starts_with("counted   tenant \"me\", by its own id, after about 20"), "{told}");
}
