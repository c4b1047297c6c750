//! `/openapi.json` and `/docs`: the document of the API, and a page of it.

use axum::{Json, Router, routing::get};
use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::{Map, Value};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        OpenApi as Document,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

/// What the document says beside its routes.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Pulse Ingestor",
        description = "Usage metering that adds up. Amounts are strings of decimal digits, exact in every client. \
                       Errors are RFC 9457 `application/problem+json`; `code` tells their kinds apart.",
        license(name = "MIT")
    ),
    modifiers(&Bearer),
    tags(
        (name = "access", description = "Who may do what."),
        (name = "pulses", description = "Pulses in."),
        (name = "usage", description = "What was used."),
        (name = "webhooks", description = "Events of others, and the inbox that keeps them."),
        (name = "dead letters", description = "What was refused, and its way back."),
        (name = "service", description = "How the service is."),
    )
)]
pub(super) struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, document: &mut Document) {
        let description =
            "A token of /api/v1/login, or an API key. The scopes say which keys may do it; a token may all.";
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some(description));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme("bearer", SecurityScheme::Http(scheme.build()));
    }
}

/// The routes of the document.
pub(super) fn routes<S: Clone + Send + Sync + 'static>(document: &Document) -> Router<S> {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    let operations = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    for operation in operations.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut);
        parameters.into_iter().flatten().for_each(never_null);
    }
    let page = page(&document).into_string();
    Router::new()
        .route("/openapi.json", get(move || async { Json(document) }))
        .route("/docs", get(move || async { axum::response::Html(page) }))
}

/// A parameter may be left out, which is not the same as being null.
fn never_null(parameter: &mut Value) {
    let kind = &mut parameter["schema"]["type"];
    if let Some(word) = kind.as_array().and_then(|kinds| kinds.iter().find(|kind| *kind != "null")) {
        *kind = word.clone();
    }
}

const STYLE: &str = "\
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}\
code{font:14px/1.4 ui-monospace,monospace;background:#eef1f5;padding:.1em .3em;border-radius:4px}\
details{border:1px solid #d5dbe3;border-radius:8px;margin:.5rem 0;padding:.5rem .8rem}summary{cursor:pointer}\
table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #e3e8ee;padding:.3rem .5rem;text-align:left;\
vertical-align:top}.method{display:inline-block;min-width:4.5rem;font-weight:700;text-transform:uppercase}\
@media(prefers-color-scheme:dark){body{color:#e6e9ee;background:#14181e}code{background:#242b35}\
details,td,th{border-color:#38414e}}";

fn page(document: &Value) -> Markup {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width,initial-scale=1";
                title { (text(&document["info"]["title"])) " API" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { (text(&document["info"]["title"])) " " (text(&document["info"]["version"])) }
                p { (text(&document["info"]["description"])) }
                p { "The document itself: " a href="/openapi.json" { "/openapi.json" } }
                @for tag in document["tags"].as_array().into_iter().flatten() {
                    h2 { (text(&tag["description"])) }
                    @for (path, method, operation) in operations(document) {
                        @if operation["tags"][0] == tag["name"] { (shown(path, method, operation)) }
                    }
                }
                h2 { "Schemas" }
                @for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
                    details id=(name) {
                        summary { code { (name) } " " (text(&schema["description"])) }
                        pre { code { (serde_json::to_string_pretty(schema).unwrap_or_default()) } }
                    }
                }
            }
        }
    }
}

/// Every operation with its path and method.
pub(super) fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let methods = item.as_object().into_iter().flatten();
        methods
            .filter(|(method, _)| METHODS.contains(&method.as_str()))
            .map(|(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

fn shown(path: &str, method: &str, operation: &Value) -> Markup {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    html! {
        details {
            summary {
                span.method { (method) } " " code { (path) } " " (text(&operation["summary"]))
            }
            p { (text(&operation["description"])) }
            @if let Some(scope) = operation["security"][0]["bearer"][0].as_str() {
                p { "Needs a token" @if scope != "admin" { ", or a key with the scope " code { (scope) } } "." }
            }
            @if let Some(parameters) = operation["parameters"].as_array() {
                table {
                    tr { th { "parameter" } th { "in" } th { "meaning" } }
                    @for parameter in parameters {
                        tr {
                            td { code { (text(&parameter["name"])) } }
                            td { (text(&parameter["in"])) }
                            td { (text(&parameter["description"])) }
                        }
                    }
                }
            }
            @if let Some(body) = operation["requestBody"].as_object() {
                p { "Body: " (body.get("description").and_then(Value::as_str).unwrap_or("JSON")) }
            }
            table {
                tr { th { "status" } th { "meaning" } }
                @for (status, response) in operation["responses"].as_object().into_iter().flatten() {
                    tr { td { code { (status) } } td { (text(&response["description"])) } }
                }
            }
        }
    }
}
