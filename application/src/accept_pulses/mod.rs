//! Pulses that somebody waits to have accepted: read, judged one by one, and handed on durably.

mod group;
mod join;

pub use group::{GroupWriter, GroupedIntake, InboxIntake};

use crate::{
    decode::{Decoder, Format, HEADER_FORMAT, Item, NATIVE},
    ports::{Delivery, Envelope, IntakeMessage, PartitionId, PortError, PulseIntake},
    trace::{TraceContext, is_trace_header},
};
use domain::{Pulse, PulseIdentity, Reason, Rejection, Timestamp};
use std::sync::Arc;

/// The media types of pulses that may be joined, as they are mostly written.
const JSON: [&str; 3] = ["application/json", "application/json; charset=utf-8", "application/x-ndjson"];

/// The use case.
pub struct AcceptPulses {
    /// The rules for pulses, the same as those of the engine; its format is that of other messages and plays no part.
    pub decoder: Decoder,
    /// Where the good ones go.
    pub intake: Arc<dyn PulseIntake>,
}

/// A body as it was sent.
pub struct Submission {
    /// The bytes.
    pub body: Vec<u8>,
    /// What was said beside it. Its message id, where the sender gave one, recognises a repetition.
    pub envelope: Envelope,
    /// A name for the message that no other has.
    pub id: String,
    /// When it arrived.
    pub received_at: Timestamp,
}

/// What became of one pulse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Its place in the body, from 0.
    pub index: u32,
    /// Why it was not accepted; `None` where it is durable.
    pub refused: Option<Rejection>,
}

/// Why nothing of a body was accepted.
#[derive(Debug, thiserror::Error)]
pub enum NotAccepted {
    /// The body could not be taken apart, or was a single pulse that is no good.
    #[error(transparent)]
    Whole(#[from] Rejection),
    /// None of its pulses.
    #[error("none of the pulses is accepted")]
    Each(Vec<Verdict>),
    /// Nothing is known about the effect: the same body may be sent again.
    #[error(transparent)]
    Port(#[from] PortError),
}

impl AcceptPulses {
    /// Hands on the pulses that are good, native or `CloudEvents`, as one message; they are durable when it returns. The
    /// message says what it is ([`HEADER_FORMAT`]), so that whoever reads it among others takes it for the same.
    ///
    /// A body of which every pulse is good goes on as it is, any other as an array of the good ones, each with its own
    /// bytes. Pulses that need nothing but themselves may be joined with those of others. The same body sent again is safe where its pulses have ids, or where it has a message id.
    ///
    /// # Errors
    /// See [`NotAccepted`].
    pub async fn run(&self, submission: Submission) -> Result<Vec<Verdict>, NotAccepted> {
        let Submission { body, envelope, id, received_at } = submission;
        let delivery = Delivery {
            partition: PartitionId(0),
            sequence: 0,
            log: None,
            returns: 0,
            body,
            envelope,
            received_at,
        };
        let mut items = Vec::new();
        Decoder { format: Format::Pulse, ..self.decoder.clone() }.decode(&delivery, &mut items);
        let verdicts = verdicts(&delivery, &items)?;
        let joins = joins(&delivery.envelope, &items);
        let whole = verdicts.iter().all(|verdict| verdict.refused.is_none());
        // One a line is no array.
        let body = if whole && (joins.is_none() || items.len() == 1 || is_array(&delivery.body)) {
            delivery.body
        } else {
            array_of_good(&delivery.body, &items)
        };
        let mut envelope = delivery.envelope;
        // Pulses without an id are then known by the message when it comes twice from the intake.
        envelope.message_id.get_or_insert_with(|| id.clone());
        envelope.headers.push((HEADER_FORMAT.to_owned(), NATIVE.to_owned()));
        self.intake.take(&[IntakeMessage { id, body, envelope, received_at, joins }]).await?;
        Ok(verdicts)
    }
}

fn verdicts(delivery: &Delivery, items: &[Item]) -> Result<Vec<Verdict>, NotAccepted> {
    if let [Item { index, pulse: Err(rejection), .. }] = items
        && (index.is_none() || !is_array(&delivery.body))
    {
        return Err(rejection.clone().into());
    }
    let refused = |item: &Item| item.pulse.as_ref().err().cloned();
    let mut verdicts: Vec<Verdict> = (0..)
        .zip(items)
        .map(|(place, item)| Verdict { index: item.index.unwrap_or(place), refused: refused(item) })
        .collect();
    let any_refused = verdicts.iter().any(|verdict| verdict.refused.is_some());
    if any_refused && items.iter().any(is_known_by_its_place) {
        // Leaving one out would move the others, and the same body sent again would count them twice.
        for verdict in &mut verdicts {
            verdict.refused.get_or_insert_with(|| {
                Rejection::new(
                    Reason::Anonymous,
                    "pulses without an id are known by their place in the body, so all or none of it is accepted: \
                     give them ids, or mend the others",
                )
            });
        }
    }
    if verdicts.iter().all(|verdict| verdict.refused.is_some()) {
        return Err(NotAccepted::Each(verdicts));
    }
    Ok(verdicts)
}

fn is_array(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"[")
}

fn is_known_by_its_place(item: &Item) -> bool {
    matches!(&item.pulse, Ok(pulse) if matches!(pulse.identity, Some(PulseIdentity::Message { .. })))
}

/// How many good pulses there are, where each is native, carries its own id, and nothing beside the body is told of them
/// but a trace that nobody records: then they are the same in any message.
fn joins(envelope: &Envelope, items: &[Item]) -> Option<usize> {
    let Envelope { message_id: None, content_type, routing_key: None, headers } = envelope else {
        return None;
    };
    let named = |pulse: &Pulse| matches!(pulse.identity, Some(PulseIdentity::Id(_)));
    let good = || items.iter().filter_map(|item| item.pulse.as_ref().ok());
    let joins = content_type.as_deref().is_none_or(|named| JSON.contains(&named))
        && headers.iter().all(|(name, _)| is_trace_header(name))
        && TraceContext::of(envelope).is_none_or(|trace| !trace.is_sampled())
        && good().all(named);
    joins.then(|| good().count())
}

fn array_of_good(body: &[u8], items: &[Item]) -> Vec<u8> {
    let mut array = Vec::with_capacity(body.len() + 2);
    for item in items.iter().filter(|item| item.pulse.is_ok()) {
        array.push(if array.is_empty() { b'[' } else { b',' });
        array.extend_from_slice(&body[item.bytes.clone()]);
    }
    array.push(b']');
    array
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::MockPulseIntake;
    use std::sync::Mutex;

    const GOOD: &str = r#"{"id":"a","tenant":"t","product_sku":"s","used_amount":1,"use_unity":"u"}"#;
    const NAMELESS: &str = r#"{"tenant":"t","product_sku":"s","used_amount":1,"use_unity":"u"}"#;
    const BAD: &str = r#"{"tenant":"t","product_sku":"s","used_amount":0,"use_unity":"u"}"#;

    /// What became of a body, and the messages that went on.
    async fn accept(
        body: &str,
        message_id: Option<&str>,
    ) -> (Result<Vec<Verdict>, NotAccepted>, Vec<IntakeMessage>) {
        accept_with(body, Envelope { message_id: message_id.map(str::to_owned), ..Envelope::default() }).await
    }

    async fn accept_with(
        body: &str,
        envelope: Envelope,
    ) -> (Result<Vec<Verdict>, NotAccepted>, Vec<IntakeMessage>) {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&taken);
        let mut intake = MockPulseIntake::new();
        intake.expect_take().returning(move |messages| {
            seen.lock().unwrap().extend_from_slice(messages);
            Ok(())
        });
        let decoder = Decoder { format: Format::CloudEvents, ..Decoder::default() };
        let accept = AcceptPulses { decoder, intake: Arc::new(intake) };
        let submission = Submission {
            body: body.into(),
            envelope,
            id: "fresh".into(),
            received_at: Timestamp::new(1_768_048_200, 0),
        };
        let result = accept.run(submission).await;
        let taken = taken.lock().unwrap().clone();
        (result, taken)
    }

    #[tokio::test]
    async fn whoever_reads_other_messages_reads_what_was_accepted_for_what_it_is() {
        let (_, mut taken) = accept(GOOD, None).await;
        let IntakeMessage { body, envelope, received_at, .. } = taken.remove(0);
        let decoder = Decoder { format: Format::CloudEvents, ..Decoder::default() };
        let mut delivery = Delivery {
            partition: PartitionId(0),
            sequence: 0,
            log: None,
            returns: 0,
            body,
            envelope,
            received_at,
        };
        let mut items = Vec::new();
        decoder.decode(&delivery, &mut items);
        assert!(items[0].pulse.is_ok(), "{items:?}");
        delivery.envelope.headers.clear();
        decoder.decode(&delivery, &mut items);
        assert!(items[1].pulse.is_err(), "{items:?}");
    }

    fn reasons(verdicts: &[Verdict]) -> Vec<Option<Reason>> {
        verdicts.iter().map(|verdict| verdict.refused.as_ref().map(|refused| refused.reason)).collect()
    }

    #[tokio::test]
    async fn a_body_of_good_pulses_goes_on_as_it_is() {
        let lines = format!("{NAMELESS}\n{GOOD}\n");
        for body in [GOOD.to_owned(), format!(" [{GOOD}, {GOOD}]"), lines] {
            let (result, taken) = accept(&body, None).await;
            assert!(result.unwrap().iter().all(|verdict| verdict.refused.is_none()), "{body}");
            assert_eq!(taken.len(), 1);
            assert_eq!((taken[0].body.as_slice(), taken[0].id.as_str()), (body.as_bytes(), "fresh"));
            assert_eq!(taken[0].envelope.message_id.as_deref(), Some("fresh"));
        }
    }

    #[tokio::test]
    async fn pulses_with_ids_and_nothing_beside_them_may_be_joined() {
        let other = GOOD.replace("\"a\"", "\"b\"");
        for (body, pulses) in [
            (GOOD.to_owned(), 1),
            (format!("[{GOOD},{other}]"), 2),
            (format!("[{GOOD},{BAD}]"), 1),
            (format!("{GOOD}\n{other}\n"), 2),
        ] {
            let (_, taken) = accept(&body, None).await;
            assert_eq!(taken[0].joins, Some(pulses), "{body}");
        }
        let (_, taken) = accept(&format!("{GOOD}\n{other}\n"), None).await;
        assert_eq!(taken[0].body, format!("[{GOOD},{other}]").into_bytes(), "lines become an array");
        for (body, key) in
            [(NAMELESS, None), (&format!("[{GOOD},{NAMELESS}]"), None), (GOOD, Some("retry-1"))]
        {
            let (_, taken) = accept(body, key).await;
            assert_eq!(taken[0].joins, None, "{body} {key:?}");
        }
        let trace = |flags: &str| Envelope {
            headers: vec![("traceparent".into(), format!("00-{:032x}-{:016x}-{flags}", 1, 2))],
            ..Envelope::default()
        };
        let of_type = |name: &str| Envelope { content_type: Some(name.into()), ..Envelope::default() };
        for (envelope, joins) in [
            (trace("00"), Some(1)),
            (trace("01"), None),
            (of_type("application/json"), Some(1)),
            (of_type("text/plain"), None),
        ] {
            let (_, taken) = accept_with(GOOD, envelope.clone()).await;
            assert_eq!(taken[0].joins, joins, "{envelope:?}");
        }
    }

    #[tokio::test]
    async fn of_a_mixed_body_the_good_ones_go_on_with_their_bytes() {
        for body in [format!("[{GOOD}, 7,{BAD},{NAMELESS}]"), format!("{GOOD}\n7\n{BAD}\n{NAMELESS}")] {
            let (result, taken) = accept(&body, None).await;
            let wanted = [None, Some(Reason::Malformed), Some(Reason::NotPositive), None];
            assert_eq!(reasons(&result.unwrap()), wanted);
            assert_eq!(taken[0].body, format!("[{GOOD},{NAMELESS}]").into_bytes());
        }
    }

    #[tokio::test]
    async fn pulses_that_are_known_by_their_place_go_on_all_or_none() {
        let (result, taken) = accept(&format!("[{BAD},{NAMELESS}]"), Some("retry-1")).await;
        let Err(NotAccepted::Each(verdicts)) = result else { panic!("{result:?}") };
        assert_eq!(reasons(&verdicts), [Some(Reason::NotPositive), Some(Reason::Anonymous)]);
        assert!(taken.is_empty());
        let (result, taken) = accept(&format!("[{GOOD},{NAMELESS}]"), Some("retry-1")).await;
        assert_eq!(reasons(&result.unwrap()), [None, None]);
        assert_eq!(taken[0].envelope.message_id.as_deref(), Some("retry-1"));
        let (result, _) = accept(&format!("[{BAD},{GOOD}]"), Some("retry-1")).await;
        assert_eq!(reasons(&result.unwrap()), [Some(Reason::NotPositive), None], "ids stand for themselves");
    }

    #[tokio::test]
    async fn what_is_no_good_at_all_goes_nowhere() {
        for (body, reason) in
            [(BAD, Reason::NotPositive), ("no", Reason::Malformed), ("[]", Reason::Malformed)]
        {
            let (result, taken) = accept(body, None).await;
            assert!(
                matches!(&result, Err(NotAccepted::Whole(refused)) if refused.reason == reason),
                "{body}"
            );
            assert!(taken.is_empty());
        }
        let (result, taken) = accept(&format!("[{BAD}]"), None).await;
        assert!(matches!(result, Err(NotAccepted::Each(verdicts)) if verdicts.len() == 1));
        assert!(taken.is_empty());
    }
}
