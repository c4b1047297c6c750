//! What is answered about dead letters.

use super::*;
use application::ports::{MockLetterPlace, MockLetterRun, StoredLetter};

/// Two letters: the first may be sent back, the second removed, each alone.
pub(super) fn place() -> MockLetterPlace {
    let mut place = MockLetterPlace::new();
    place.expect_open().returning(|| {
        let mut run = MockLetterRun::new();
        let letter = |id: &str, reason: &str| StoredLetter {
            id: id.to_owned(),
            reason: reason.to_owned(),
            body: b"{\"tenant\":\"t\"}\xff".to_vec(),
            received_at: Some(NOW),
            ..StoredLetter::default()
        };
        let mut left = vec![(1, letter("a", "too_old")), (2, letter("b", "malformed"))];
        run.expect_next().returning(move || Ok(std::mem::take(&mut left)));
        run.expect_send_back()
            .withf(|letters| letters.iter().map(|letter| letter.number).eq([1]))
            .returning(|_| Ok(()));
        run.expect_remove().returning(|numbers| match numbers {
            [2] => Ok(()),
            _ => Err(PortError::transient("remove", "away")),
        });
        run.expect_close().returning(|| Ok(()));
        Ok(Box::new(run))
    });
    place
}

#[tokio::test]
async fn who_says_which_letters_gets_an_answer() {
    let service = service();
    let user = token(&service).await;
    for (method, path, body, wanted) in [
        ("GET", "/api/v1/dead-letters?place=rabbitmq&reason=too_old&since=2026-01-10T12:00:00Z", "", 200),
        ("GET", "/api/v1/dead-letters?place=nowhere", "", 422),
        ("GET", "/api/v1/dead-letters?since=today", "", 422),
        ("GET", "/api/v1/dead-letters?limit=101", "", 422),
        ("GET", "/api/v1/dead-letters?resaon=x", "", 400),
        ("GET", "/api/v1/dead-letters/a", "", 200),
        ("GET", "/api/v1/dead-letters/x", "", 404),
        ("POST", "/api/v1/dead-letters/replay", r#"{"ids":["a"]}"#, 200),
        ("POST", "/api/v1/dead-letters/replay", r#"{"all":true,"dry_run":true}"#, 200),
        ("POST", "/api/v1/dead-letters/replay", "{}", 422),
        ("POST", "/api/v1/dead-letters/replay", r#"{"all":true,"reason":"x"}"#, 422),
        ("POST", "/api/v1/dead-letters/replay", r#"{"all":"yes"}"#, 422),
        ("POST", "/api/v1/dead-letters/discard", r#"{"all":true,"dry_run":true}"#, 200),
        ("POST", "/api/v1/dead-letters/discard", r#"{"all":true}"#, 503),
        ("POST", "/api/v1/dead-letters/discard", r#"{"reason":"malformed"}"#, 200),
        ("POST", "/api/v1/dead-letters/discard", r#"{"ids":["a"]}"#, 503),
        ("POST", "/api/v1/dead-letters/discard", r#"{"all":true,"force":true}"#, 422),
    ] {
        let status = status(&service, request(method, path, Some(&user), body)).await;
        assert_eq!(status.as_u16(), wanted, "{method} {path} {body}");
    }
    let told = answer(&service, request("GET", "/metrics", None, Body::empty())).await;
    let told = to_bytes(told.into_body(), 1 << 20).await.unwrap();
    let told = String::from_utf8(told.to_vec()).unwrap();
    for line in [
        "pulse_dead_letters_replayed_total{place=\"rabbitmq\"} 1",
        "pulse_dead_letters_discarded_total{place=\"rabbitmq\"} 1",
    ] {
        assert!(told.lines().any(|told| told == line), "{line}: {told}");
    }
}

#[tokio::test]
async fn dead_letters_are_shown_and_what_was_done_is_told() {
    let service = service();
    let user = token(&service).await;
    let ask = async |method, path, body| {
        value(answer(&service, request(method, path, Some(&user), body)).await).await
    };
    let shown = ask("GET", "/api/v1/dead-letters?reason=malformed", "").await;
    assert_eq!(shown["data"].as_array().unwrap().len(), 1, "{shown}");
    assert_eq!(
        (&shown["data"][0]["id"], &shown["data"][0]["body"]),
        (&json!("b"), &json!("{\"tenant\":\"t\"}\u{fffd}"))
    );
    assert_eq!(shown["places"][0]["reasons"], json!({"malformed": 1}));
    assert_eq!(
        (&shown["places"][0]["looked_at"], &shown["places"][0]["complete"]),
        (&json!(2), &json!(true))
    );
    let one = ask("GET", "/api/v1/dead-letters/a", "").await;
    assert_eq!(
        (&one["body_base64"], &one["received_at"]),
        (&json!("eyJ0ZW5hbnQiOiJ0In3/"), &json!("2026-01-10T12:00:00Z"))
    );
    let done = ask("POST", "/api/v1/dead-letters/replay", r#"{"reason":"too_old"}"#).await;
    assert_eq!((&done["places"][0]["done"], &done["places"][0]["fitting"]), (&json!(1), &json!(1)), "{done}");
}
