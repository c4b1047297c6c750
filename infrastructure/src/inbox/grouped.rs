//! Group commit: the events of all callers that wait are stored in one transaction, so that they share its sync to disk.

use super::tables::{ContentHash, InboxTable, NewRow};
use application::ports::{InboxEvent, PortError, Stored};
use std::{collections::HashMap, sync::Arc};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::JoinSet,
};

const OPERATION: &str = "store events in the inbox";
/// A group is closed when it has so many events or bytes. A single call is never split.
const GROUP_EVENTS: usize = 1_000;
const GROUP_BYTES: usize = 8 * 1024 * 1024;
/// How much may wait to be stored. Each call counts as at least [`CALL_BYTES_MIN`], so that their number is bounded too.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;
const CALL_BYTES_MIN: usize = 16 * 1024;

type Answer = Result<Vec<Stored>, PortError>;

/// One task that writes, and the queue before it. The task ends with this value.
pub(super) struct GroupedWrites {
    queue: mpsc::UnboundedSender<Call>,
    /// In bytes: what bounds the queue.
    room: Arc<Semaphore>,
    _writer: JoinSet<()>,
}

/// The events of one caller.
struct Call {
    rows: Vec<NewRow>,
    answer: oneshot::Sender<Answer>,
    room: OwnedSemaphorePermit,
}

impl GroupedWrites {
    pub(super) fn start(table: Arc<dyn InboxTable>, arrivals: Arc<Notify>) -> Self {
        let (queue, calls) = mpsc::unbounded_channel();
        let mut writer = JoinSet::new();
        writer.spawn(write(table, arrivals, calls));
        Self { queue, room: Arc::new(Semaphore::new(QUEUE_BYTES)), _writer: writer }
    }

    /// As the port says. A caller that goes away leaves its events to be stored or not, and nobody else's.
    pub(super) async fn store(&self, events: &[InboxEvent]) -> Answer {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<NewRow> =
            events.iter().map(|event| NewRow::new(OPERATION, event.clone())).collect::<Result<_, _>>()?;
        let bytes: usize = rows.iter().map(NewRow::bytes).sum();
        let bytes = u32::try_from(bytes.clamp(CALL_BYTES_MIN, QUEUE_BYTES)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).try_acquire_many_owned(bytes);
        let room = room.map_err(|_| {
            PortError::transient(OPERATION, "as much is waiting to be stored as may wait; try again later")
        })?;
        let (answer, answered) = oneshot::channel();
        let ended = |()| PortError::transient(OPERATION, "the writer has ended");
        self.queue.send(Call { rows, answer, room }).map_err(|_| ended(()))?;
        answered.await.map_err(|_| ended(()))?
    }
}

/// Writes until nobody is left who could call.
async fn write(table: Arc<dyn InboxTable>, arrivals: Arc<Notify>, mut calls: mpsc::UnboundedReceiver<Call>) {
    while let Some(first) = calls.recv().await {
        let mut group = Group::default();
        group.take(first);
        while !group.is_full()
            && let Ok(call) = calls.try_recv()
        {
            group.take(call);
        }
        if group.store(table.as_ref()).await {
            arrivals.notify_one();
        }
    }
}

/// Calls that are answered together.
#[derive(Default)]
struct Group {
    /// What is written: the first of each event.
    rows: Vec<NewRow>,
    places: HashMap<(String, String), usize>,
    bytes: usize,
    calls: Vec<Waiting>,
}

/// A call whose events are in the group: of each, the place of the row and its own content.
struct Waiting {
    events: Vec<(usize, ContentHash)>,
    answer: oneshot::Sender<Answer>,
    _room: OwnedSemaphorePermit,
}

impl Group {
    fn take(&mut self, Call { rows, answer, room }: Call) {
        let events = rows.into_iter().map(|row| {
            let (source, event_id) = row.key();
            let (next, hash) = (self.rows.len(), row.hash);
            let place = *self.places.entry((source.to_owned(), event_id.to_owned())).or_insert(next);
            if place == next {
                self.bytes += row.bytes();
                self.rows.push(row);
            }
            (place, hash)
        });
        let events = events.collect();
        self.calls.push(Waiting { events, answer, _room: room });
    }

    fn is_full(&self) -> bool {
        self.rows.len() >= GROUP_EVENTS || self.bytes >= GROUP_BYTES
    }

    /// Stores and answers; whether anything is new.
    async fn store(self, table: &dyn InboxTable) -> bool {
        let stored = table.insert(&self.rows).await;
        // The first to ask for a new row has made it; for everybody else it was there.
        let mut known: Vec<Option<ContentHash>> = match stored {
            Ok(known) => known,
            Err(error) => {
                for call in self.calls {
                    let _ = call.answer.send(Err(again(&error)));
                }
                return false;
            }
        };
        let any_new = known.iter().any(Option::is_none);
        for call in self.calls {
            let outcomes = call.events.into_iter().map(|(place, hash)| match known[place] {
                None => {
                    known[place] = Some(hash);
                    Stored::New
                }
                Some(stored) if stored == hash => Stored::Known,
                Some(_) => Stored::Conflict,
            });
            let _ = call.answer.send(Ok(outcomes.collect()));
        }
        any_new
    }
}

/// The same error for one more caller.
fn again(error: &PortError) -> PortError {
    let text = std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string);
    if error.is_transient() {
        PortError::transient(OPERATION, text)
    } else {
        PortError::permanent(OPERATION, text)
    }
}
