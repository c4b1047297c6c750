//! The engine as it archives.

use super::*;
use crate::{
    ingest::ArchiveEvents,
    ports::{ArchivedEvent, EventArchive, LogReading},
};
use domain::LogName;
use std::sync::atomic::{AtomicBool, Ordering};

/// What was kept of an event: its key, its amount and its bytes.
type Kept = (u128, String, String);

/// Keeps everything; as long as it is `away`, every call fails, and leaves what it was for in `refused`.
#[derive(Default)]
struct ScriptedArchive {
    away: AtomicBool,
    refused: Mutex<Vec<Vec<u128>>>,
    batches: Mutex<Vec<Vec<Kept>>>,
}

#[async_trait]
impl EventArchive for ScriptedArchive {
    async fn keep(&self, events: &[ArchivedEvent<'_>]) -> Result<(), PortError> {
        if self.away.load(Ordering::Relaxed) {
            self.refused.lock().unwrap().push(events.iter().map(|archived| archived.key).collect());
            return Err(PortError::transient("keep", "away"));
        }
        let kept = events.iter().map(|archived| {
            let amount = archived.event.amount.map_or_else(|| "0".to_owned(), |amount| amount.to_string());
            (archived.key, amount, String::from_utf8(archived.body.to_vec()).unwrap())
        });
        self.batches.lock().unwrap().push(kept.collect());
        Ok(())
    }

    async fn check(&self) -> Result<(), PortError> {
        Ok(())
    }
}

fn start(archive: &Arc<ScriptedArchive>, run: u8, limits: Limits) -> Running {
    let archive = Arc::clone(archive) as _;
    Bench::new(Arc::new(MockPulseSink::new()), limits).start_as(|engine, stop| {
        let IngestPulses { routes, limits, tally, .. } = engine;
        let archive_name = "archive".to_owned();
        ArchiveEvents { routes, archive, archive_name, run: [run; 16], limits, tally }.run(stop)
    })
}

fn says(id: &str, amount: &str) -> String {
    format!(r#"{{{id}"tenant":"t","product_sku":"s","used_amount":{amount},"use_unity":"u"}}"#)
}

/// The keys of what a run of its own makes of these deliveries.
async fn keys(run: u8, deliveries: &[Delivery]) -> Vec<u128> {
    let archive = Arc::new(ScriptedArchive::default());
    let running = start(&archive, run, Limits::default());
    running.put(deliveries.iter().cloned());
    running.end().await.unwrap();
    let batches = archive.batches.lock().unwrap();
    batches.iter().flatten().map(|(key, _, _)| *key).collect()
}

#[tokio::test(start_paused = true)]
async fn what_counts_nothing_is_archived_and_what_is_bad_is_refused() {
    let archive = Arc::new(ScriptedArchive::default());
    let running = start(&archive, 1, Limits::default());
    let zero = says("", "0.00");
    running.put([delivery(1, format!("[{zero},{},{}]", says("", "-1"), says("", "-0")))]);
    Running::a_second().await;
    assert_eq!(running.settled_up_to(), Some(1));
    let reasons: Vec<_> =
        running.letters.lock().unwrap().iter().map(|letter| letter.rejection.reason).collect();
    assert_eq!(reasons, [Reason::NotPositive, Reason::NotPositive]);
    let kept = archive.batches.lock().unwrap().concat();
    assert_eq!(
        kept.into_iter().map(|(_, amount, body)| (amount, body)).collect::<Vec<_>>(),
        [("0".into(), zero)]
    );
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_archive_that_is_away_holds_everything_and_gets_the_same_batch_again() {
    let archive = Arc::new(ScriptedArchive::default());
    let running = start(&archive, 1, Limits { batch_size: 2, ..Limits::default() });
    archive.away.store(true, Ordering::Relaxed);
    running.put((1..=5).map(|sequence| delivery(sequence, says("", "1"))));
    Running::a_second().await;
    assert_eq!(running.settled_up_to(), None, "nothing is settled that is not kept");
    assert!(matches!(running.tally.snapshot(), TallySnapshot { counted: 0, messages: 5, .. }));
    archive.away.store(false, Ordering::Relaxed);
    sleep(Duration::from_mins(2)).await;
    assert_eq!(running.settled_up_to(), Some(5));
    let batches = archive.batches.lock().unwrap().clone();
    let first: Vec<u128> = batches[0].iter().map(|(key, _, _)| *key).collect();
    let refused = archive.refused.lock().unwrap().clone();
    assert!(refused.len() > 1 && refused.iter().all(|keys| *keys == first), "{refused:?}");
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn batches_go_out_by_size_in_the_order_of_arrival_on_one_lane() {
    let archive = Arc::new(ScriptedArchive::default());
    let running = start(&archive, 1, Limits { batch_size: 3, ..Limits::default() });
    running.put((1..=7).map(|sequence| one(if sequence % 2 == 0 { LEFT } else { RIGHT }, sequence)));
    Running::a_second().await;
    assert_eq!(running.settled_up_to(), Some(7));
    let batches = archive.batches.lock().unwrap().clone();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [3, 3, 1]);
    let bodies = batches.concat().into_iter().map(|(_, _, body)| body);
    let put = (1..=7).map(|sequence| pulse(if sequence % 2 == 0 { LEFT } else { RIGHT }, sequence));
    assert!(bodies.eq(put), "in the order of arrival");
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_no_larger_than_its_bytes_allow_and_a_single_event_may_be() {
    let archive = Arc::new(ScriptedArchive::default());
    let running = start(&archive, 1, Limits::default());
    let sized = |megabytes: usize| says(&format!(r#""note":"{}","#, "x".repeat(megabytes << 20)), "1");
    running.put([1, 40, 20, 20].into_iter().zip(1..).map(|(size, sequence)| delivery(sequence, sized(size))));
    Running::a_second().await;
    let batches = archive.batches.lock().unwrap().clone();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1, 1, 1]);
    running.end().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn copies_have_one_key_in_every_run_and_different_events_have_others() {
    let log = |partition: &str, sequence, body: &str| Delivery {
        log: Some(Arc::new(LogReading { log: LogName::of(&["kafka", partition]).unwrap(), after: 0 })),
        ..delivery(sequence, body)
    };
    let with_id = says(r#""id":"7","#, "1");
    let anonymous = says("", "1");
    let message = |id: &str| Delivery {
        envelope: Envelope { message_id: Some(id.into()), ..Envelope::default() },
        ..delivery(1, &*anonymous)
    };
    let deliveries = [
        delivery(1, &*with_id),
        delivery(2, says(r#""id":"8","#, "1")),
        delivery(3, says(r#""id":"7","#, "2")),
        message("7"),
        message("8"),
        log("0", 1, &anonymous),
        log("0", 2, &anonymous),
        log("1", 1, &anonymous),
        log("1", 3, &format!("[{anonymous},{anonymous}]")),
    ];
    let first = keys(1, &deliveries).await;
    assert_eq!(keys(2, &deliveries).await, first, "another run knows them all");
    let mut unique = first.clone();
    unique.sort_unstable();
    unique.dedup();
    assert_eq!(unique.len(), 10, "and no two are one");

    assert_eq!(
        keys(1, &[delivery(9, &*with_id), log("9", 9, &with_id)]).await,
        [first[0]; 2],
        "an id is the same anywhere"
    );
    let unknown = [delivery(1, &*anonymous), delivery(2, &*anonymous)];
    let (one, other) = (keys(1, &unknown).await, keys(2, &unknown).await);
    assert_ne!(one[0], one[1]);
    assert_ne!(one, other, "what nothing identifies is kept at least once");
}
