//! The embedded file: needs no server.
#![expect(clippy::unwrap_used, reason = "a test without its ground panics")]

#[path = "sqlite/contract.rs"]
mod contract;
#[path = "sqlite/dead_letters.rs"]
mod dead_letters;
#[path = "sqlite/inbox.rs"]
mod inbox;
#[path = "shared/inbox_crashes.rs"]
mod inbox_crashes;
#[path = "shared/inbox_events.rs"]
mod inbox_events;
#[path = "sqlite/letters.rs"]
mod letters;

use infrastructure::sqlite::{EmbeddedSettings, EmbeddedStore};
use std::{path::Path, time::Duration};

const WINDOW: Duration = Duration::from_hours(48);

fn settings(path: &Path) -> EmbeddedSettings {
    EmbeddedSettings { dedupe_window: WINDOW, ..EmbeddedSettings::new(path) }
}

async fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(&settings(path)).await.expect("the file opens")
}
