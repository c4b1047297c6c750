//! Messages that nothing can be done with, between good ones.

use crate::system::System;
use std::collections::{BTreeMap, BTreeSet};

fn pulse(id: &str, tenant: &str, amount: &str) -> String {
    let tenant = tenant.replace('"', "\\\"");
    format!(
        r#"{{"id":"{id}","tenant":"{tenant}","product_sku":"s","used_amount":{amount},"use_unity":"KB"}}"#
    )
}

fn bad_bodies() -> Vec<(&'static str, Vec<u8>)> {
    let with_amount = |amount: &str| pulse("bad", "t", amount).into_bytes();
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let twice = pulse("bad", "t", "1").replace("\"id\"", "\"tenant\":\"t\",\"id\"");
    vec![
        ("malformed", b"not json".to_vec()),
        ("malformed", b"".to_vec()),
        ("malformed", b"\0\0\0".to_vec()),
        ("malformed", b"[]".to_vec()),
        ("malformed", b"{\"tenant\":\"\xff\xfe\"}".to_vec()),
        ("malformed", with_amount("NaN")),
        ("malformed", deep.clone().into_bytes()),
        ("malformed", pulse("bad", "t", "1").replace('}', &format!(",\"x\":{deep}}}")).into_bytes()),
        ("malformed", twice.into_bytes()),
        ("out_of_range", with_amount("1e400")),
        ("out_of_range", with_amount(&"9".repeat(400))),
        ("not_positive", with_amount("-1")),
        ("not_positive", with_amount("0")),
        ("too_precise", with_amount("0.1234567891")),
        ("invalid_field", with_amount("\"abc\"")),
        ("invalid_field", with_amount("true")),
        ("invalid_field", pulse("bad", "", "1").into_bytes()),
        ("invalid_field", pulse("bad", "a\\u0000b", "1").into_bytes()),
        ("invalid_field", pulse("bad", &"x".repeat(1_000_000), "1").into_bytes()),
        ("missing_field", b"{\"tenant\":\"t\"}".to_vec()),
        ("too_many_items", format!("[{}1]", "1,".repeat(1_000)).into_bytes()),
    ]
}

#[test]
fn every_bad_message_is_dead_lettered_with_its_reason_and_bytes_and_every_good_one_counts() {
    let system = System::start();
    system.run(&["--worker", "--until-idle", "1s"]);
    let tenants = ["a:b", "}{", "*?[", "\u{1f600} \u{b5}", "a\"b", "plain"];
    let mut good = 0_u64;
    let mut messages = Vec::new();
    for (number, (_, body)) in bad_bodies().into_iter().enumerate() {
        messages.push((Some(format!("bad-{number}")), body));
        for tenant in tenants {
            messages.push((None, pulse(&format!("{number}"), tenant, "9007199254740993").into_bytes()));
            good += 1;
        }
    }
    let array =
        format!("[{},{{\"tenant\":7}},{}]", pulse("left", "array", "0.9"), pulse("right", "array", "0.1"));
    messages.push((Some("array".into()), array.into_bytes()));
    system.publish(&messages);

    let ledger = system.drain();
    assert_eq!(ledger.values().map(|(_, pulses)| pulses).sum::<u64>(), good + 2);
    let per_tenant = bad_bodies().len() as u128;
    let amounts: BTreeMap<&str, &str> =
        ledger.iter().map(|(key, (amount, _))| (key[0].as_str(), amount.as_str())).collect();
    for tenant in tenants {
        assert_eq!(amounts[tenant], (9_007_199_254_740_993 * per_tenant).to_string());
    }
    assert_eq!(amounts["array"], "1");

    let letters = system.dead_letters();
    let found: BTreeSet<(String, Vec<u8>)> = letters
        .iter()
        .map(|letter| (letter.headers["x-pulse-reason"].clone(), letter.body.clone()))
        .collect();
    let mut expected: BTreeSet<(String, Vec<u8>)> =
        bad_bodies().into_iter().map(|(reason, body)| (reason.to_owned(), body)).collect();
    expected.insert(("invalid_field".into(), b"{\"tenant\":7}".to_vec()));
    let show = |set: &BTreeSet<(String, Vec<u8>)>| {
        set.iter()
            .map(|(reason, body)| {
                let start = String::from_utf8_lossy(&body[..body.len().min(60)]);
                format!("{reason}: {} bytes: {start}", body.len())
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(show(&found), show(&expected));
    assert!(found == expected, "the bytes are the original ones");
    assert_eq!(letters.len(), expected.len(), "each once");
    let item = letters.iter().find(|letter| letter.body == b"{\"tenant\":7}").unwrap();
    assert_eq!(item.headers["x-pulse-message-id"], "array");
    assert!(letters.iter().all(|letter| !letter.headers["x-pulse-detail"].is_empty()));
}

#[test]
fn an_id_that_comes_again_with_other_content_is_refused_as_a_conflict() {
    let system = System::start();
    system.run(&["--worker", "--until-idle", "1s"]);
    let message = |amount: &str| (None, pulse("same", "t", amount).into_bytes());
    system.publish(&[message("1"), message("1.0"), message("2")]);
    let first = system.drain();
    system.publish(&[message("3"), message("1")]);
    assert_eq!(system.drain(), first);
    assert_eq!(first.values().collect::<Vec<_>>(), [&("1".to_owned(), 1)]);
    let letters = system.dead_letters();
    let conflicts: BTreeSet<&[u8]> = letters.iter().map(|letter| &*letter.body).collect();
    let expected = [pulse("same", "t", "2"), pulse("same", "t", "3")];
    assert_eq!(conflicts, expected.iter().map(String::as_bytes).collect());
    assert!(letters.iter().all(|letter| letter.headers["x-pulse-reason"] == "conflict"));
}
