//! Made-up load over HTTP.

use super::*;

#[tokio::test]
async fn a_run_of_made_up_pulses_is_bounded_and_tells_its_progress() {
    let service = service();
    let token = key(Scope::Ingest).text;
    let start = async |body: &str| {
        answer(&service, request("POST", "/api/v1/pulses/populate", Some(&token), body.to_owned())).await
    };
    for (body, field) in [
        (r"{}", "total_messages"),
        (r#"{"total_messages":0}"#, "total_messages"),
        (r#"{"total_messages":1000001}"#, "total_messages"),
        (r#"{"total_messages":-1}"#, "total_messages"),
        (r#"{"total_messages":"many"}"#, "total_messages"),
        (r#"{"total_messages":1,"workers_number":17}"#, "workers_number"),
        (r#"{"total_messages":1,"workers_number":0}"#, "workers_number"),
        (r#"{"total_messages":1,"buffer_size":1001}"#, "buffer_size"),
        (r#"{"total_messages":1,"buffer_size":1.5}"#, "buffer_size"),
    ] {
        let refused = start(body).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY, "{body}");
        assert_eq!(value(refused).await["field"], field, "{body}");
    }
    let begun = start(r#"{"total_messages":250,"workers_number":2,"buffer_size":100}"#).await;
    assert_eq!(begun.status(), StatusCode::ACCEPTED);
    let location = begun.headers()[header::LOCATION].to_str().unwrap().to_owned();
    let begun = value(begun).await;
    assert_eq!(location, format!("/api/v1/pulses/populate/{}", begun["id"].as_str().unwrap()));
    assert_eq!(
        (&begun["state"], &begun["total"], &begun["ended_at"]),
        (&json!("running"), &json!(250), &json!(null))
    );
    let busy = start(r#"{"total_messages":1}"#).await;
    assert_eq!(busy.status(), StatusCode::TOO_MANY_REQUESTS, "the first has not had a chance to run");
    assert!(busy.headers().contains_key(header::RETRY_AFTER));
    let done = loop {
        tokio::task::yield_now().await;
        let progress = value(answer(&service, request("GET", &location, Some(&token), "")).await).await;
        if progress["state"] != "running" {
            break progress;
        }
    };
    assert_eq!((&done["state"], &done["published"]), (&json!("done"), &json!(250)), "{done}");
    assert!(done["ended_at"].is_string() && done["rate"].is_u64());
    assert_eq!(start(r#"{"total_messages":1}"#).await.status(), StatusCode::ACCEPTED);
}
