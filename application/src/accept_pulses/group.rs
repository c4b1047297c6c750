//! Many callers, one durable step: what waits while a step is under way goes into the next one together, in as few messages as may be.

use super::join::joined;
use crate::ports::{Inbox, InboxEvent, InboxFilter, IntakeMessage, PortError, PulseIntake, Stored};
use async_trait::async_trait;
use std::{iter::zip, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
    time::sleep,
};

/// The most callers in one step, and the most that wait for the next.
const CALLERS_MAX: usize = 256;
/// With so many callers in the last step the next one waits a moment for as many: the answer of any of them takes
/// longer than that where so much is to be done.
const SIBLINGS: usize = 4;
const LINGER: Duration = Duration::from_millis(1);
const OPERATION: &str = "hand pulses on";

/// An intake that gathers what many callers hand on at the same time.
pub struct GroupedIntake {
    waiting: mpsc::Sender<Waiting>,
    intake: Arc<dyn PulseIntake>,
}

/// Takes the steps of a [`GroupedIntake`]: somebody must run it.
pub struct GroupWriter {
    waiting: mpsc::Receiver<Waiting>,
    intake: Arc<dyn PulseIntake>,
    pulses_max: usize,
}

struct Waiting {
    messages: Vec<IntakeMessage>,
    answer: oneshot::Sender<Result<(), PortError>>,
}

impl GroupedIntake {
    /// An intake in front of another. A message to which others are joined has at most so many pulses.
    #[must_use]
    pub fn before(intake: Arc<dyn PulseIntake>, pulses_max: usize) -> (Self, GroupWriter) {
        let (sender, waiting) = mpsc::channel(CALLERS_MAX);
        (Self { waiting: sender, intake: Arc::clone(&intake) }, GroupWriter { waiting, intake, pulses_max })
    }
}

#[async_trait]
impl PulseIntake for GroupedIntake {
    async fn take(&self, messages: &[IntakeMessage]) -> Result<(), PortError> {
        let stopped = || PortError::transient(OPERATION, "the service is stopping");
        let (sender, answer) = oneshot::channel();
        let waiting = Waiting { messages: messages.to_vec(), answer: sender };
        self.waiting.send(waiting).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    async fn check(&self) -> Result<(), PortError> {
        self.intake.check().await
    }
}

impl GroupWriter {
    /// Takes steps until the intake is gone and nobody waits any more.
    pub async fn run(mut self) {
        let mut group = Vec::with_capacity(CALLERS_MAX);
        let mut last = 0;
        while self.waiting.recv_many(&mut group, CALLERS_MAX).await > 0 {
            if last >= SIBLINGS {
                sleep(LINGER).await;
            }
            self.gather(&mut group).await;
            last = group.len();
            self.step(&mut group).await;
        }
    }

    /// Lets every task that is ready go first, as long as that brings more: a step for many costs little more than one for
    /// one. It waits for nothing.
    async fn gather(&mut self, group: &mut Vec<Waiting>) {
        let mut before = 0;
        while before < group.len() && group.len() < CALLERS_MAX {
            before = group.len();
            yield_now().await;
            while group.len() < CALLERS_MAX
                && let Ok(waiting) = self.waiting.try_recv()
            {
                group.push(waiting);
            }
        }
    }

    async fn step(&self, group: &mut Vec<Waiting>) {
        // Whoever has gone away meanwhile has no answer, and sends again.
        group.retain(|waiting| !waiting.answer.is_closed());
        let messages = joined(group.iter().flat_map(|waiting| &waiting.messages), self.pulses_max);
        if messages.is_empty() {
            return;
        }
        let result = self.intake.take(&messages).await;
        let alone = group.len() == 1;
        for waiting in group.drain(..) {
            let own = match &result {
                Ok(()) => Ok(()),
                Err(error) if error.is_transient() => Err(PortError::transient(OPERATION, error.to_string())),
                Err(error) if alone => Err(PortError::permanent(OPERATION, error.to_string())),
                // The fault may be that of one message: the others are not to suffer from it. What was joined has ids, so it
                // may be handed on twice.
                Err(_) => self.intake.take(&waiting.messages).await,
            };
            // Nobody is there to hear it where the caller has gone away.
            let _ = waiting.answer.send(own);
        }
    }
}

/// The inbox as the place where pulses wait for the engine.
pub struct InboxIntake {
    /// The inbox.
    pub inbox: Arc<dyn Inbox>,
}

impl InboxIntake {
    /// By which name the events of pulses are known in the inbox.
    pub const SOURCE: &'static str = "pulses";
}

#[async_trait]
impl PulseIntake for InboxIntake {
    async fn take(&self, messages: &[IntakeMessage]) -> Result<(), PortError> {
        let events: Vec<InboxEvent> = messages.iter().map(event).collect();
        let stored = self.inbox.store(&events).await?;
        match zip(messages, stored).find(|(_, stored)| *stored == Stored::Conflict) {
            None => Ok(()),
            Some((message, _)) => {
                Err(PortError::permanent(OPERATION, format!("two messages have the name {}", message.id)))
            }
        }
    }

    async fn check(&self) -> Result<(), PortError> {
        // One row, however many wait.
        let any = InboxFilter { status: None, source: None, before: None, limit: 1 };
        self.inbox.list(&any).await.map(|_| ())
    }
}

fn event(message: &IntakeMessage) -> InboxEvent {
    InboxEvent {
        source: InboxIntake::SOURCE.to_owned(),
        event_id: message.id.clone(),
        original: None,
        body: message.body.clone(),
        envelope: message.envelope.clone(),
        received_at: message.received_at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Envelope, MockInbox, MockPulseIntake};
    use domain::Timestamp;
    use futures_util::future::join_all;
    use std::sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    fn message(id: usize) -> IntakeMessage {
        IntakeMessage {
            id: id.to_string(),
            body: b"{}".to_vec(),
            envelope: Envelope::default(),
            received_at: Timestamp::new(0, 0),
            joins: None,
        }
    }

    /// A hundred callers at once; the answers they get.
    async fn hundred(intake: MockPulseIntake) -> Vec<Result<(), PortError>> {
        hundred_of(message, intake).await
    }

    async fn hundred_of(
        message: impl Fn(usize) -> IntakeMessage,
        intake: MockPulseIntake,
    ) -> Vec<Result<(), PortError>> {
        let (grouped, writer) = GroupedIntake::before(Arc::new(intake), 1_000);
        let callers = async move {
            join_all((0..100).map(|id| {
                let (grouped, message) = (&grouped, message(id));
                async move { grouped.take(&[message]).await }
            }))
            .await
        };
        let (answers, ()) = tokio::join!(callers, writer.run());
        answers
    }

    #[tokio::test]
    async fn callers_share_steps_and_each_message_goes_on_once() {
        let (steps, messages) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut intake = MockPulseIntake::new();
        let seen = (Arc::clone(&steps), Arc::clone(&messages));
        intake.expect_take().returning(move |group| {
            seen.0.fetch_add(1, Ordering::Relaxed);
            seen.1.fetch_add(group.len(), Ordering::Relaxed);
            Ok(())
        });
        assert!(hundred(intake).await.iter().all(Result::is_ok));
        assert_eq!(messages.load(Ordering::Relaxed), 100);
        assert!(steps.load(Ordering::Relaxed) < 10);
    }

    #[tokio::test]
    async fn a_fault_of_the_world_is_told_to_all_and_one_of_a_message_to_its_caller() {
        let mut away = MockPulseIntake::new();
        away.expect_take().returning(|_| Err(PortError::transient("store", "away")));
        assert!(hundred(away).await.iter().all(|answer| answer.as_ref().is_err_and(PortError::is_transient)));
        let mut picky = MockPulseIntake::new();
        picky.expect_take().returning(|group| match group.iter().find(|message| message.id == "7") {
            Some(_) => Err(PortError::permanent("store", "too large")),
            None => Ok(()),
        });
        let answers = hundred(picky).await;
        let failed: Vec<usize> = (0..100).filter(|place| answers[*place].is_err()).collect();
        assert_eq!(failed, [7]);
    }

    #[tokio::test]
    async fn what_may_be_joined_goes_on_in_one_message_and_alone_where_that_is_refused() {
        let numbered = |id: usize| IntakeMessage {
            body: format!(r#"{{"id":{id}}}"#).into_bytes(),
            joins: Some(1),
            ..message(id)
        };
        let bodies = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&bodies);
        let mut intake = MockPulseIntake::new();
        intake.expect_take().returning(move |messages| {
            let [message] = messages else { panic!("{messages:?}") };
            let body = String::from_utf8(message.body.clone()).unwrap();
            let refused = body.contains(r#""id":7}"#);
            if !refused {
                seen.lock().unwrap().push(body);
            }
            if refused { Err(PortError::permanent("store", "too large")) } else { Ok(()) }
        });
        let answers = hundred_of(numbered, intake).await;
        let failed: Vec<usize> = (0..100).filter(|place| answers[*place].is_err()).collect();
        assert_eq!(failed, [7]);
        let stored = bodies.lock().unwrap().join("\n");
        for id in (0..100).filter(|id| *id != 7) {
            assert_eq!(stored.matches(&format!(r#"{{"id":{id}}}"#)).count(), 1, "{id} in {stored}");
        }
    }

    #[tokio::test]
    async fn the_inbox_holds_the_bytes_and_the_envelope() {
        let mut inbox = MockInbox::new();
        inbox.expect_store().returning(|events| {
            assert_eq!((events[0].source.as_str(), events[0].event_id.as_str()), ("pulses", "3"));
            assert_eq!((events[0].body.as_slice(), &events[0].original), (b"{}".as_slice(), &None));
            Ok(vec![Stored::New, Stored::Known])
        });
        InboxIntake { inbox: Arc::new(inbox) }.take(&[message(3), message(3)]).await.unwrap();
        let mut inbox = MockInbox::new();
        inbox.expect_store().returning(|_| Ok(vec![Stored::Conflict]));
        let error = InboxIntake { inbox: Arc::new(inbox) }.take(&[message(3)]).await.unwrap_err();
        assert!(!error.is_transient());
    }
}
