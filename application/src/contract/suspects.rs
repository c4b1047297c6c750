//! What every store of marks does for messages that are taken alone.
//!
//! `suspects_contract!` makes a test of each promise.
#![expect(clippy::missing_panics_doc, reason = "tests panic where the contract is broken")]

use crate::ports::{SuspectId, Suspects};

/// A store of one test, without any mark.
pub trait FreshMarks {
    /// A handle on the store.
    type Marks: Suspects;

    /// A handle like that of another process: every call gives one more on the same marks.
    fn open(&self) -> impl Future<Output = Self::Marks> + Send;
}

/// Makes a test of each promise. The expression is a future of [`FreshMarks`], asked for once a test.
#[macro_export]
macro_rules! suspects_contract {
    ($fresh:expr) => {
        $crate::suspects_contract! { $fresh =>
            a_message_that_comes_back_from_being_alone_was_so_once_more
            one_that_did_not_come_back_was_not_taken_once_more
            a_message_that_had_its_answer_begins_anew
        }
    };
    ($fresh:expr => $($promise:ident)*) => {
        $(
            #[tokio::test]
            async fn $promise() {
                let fresh = $fresh.await;
                $crate::contract::suspects::$promise(&fresh).await;
            }
        )*
    };
}

const ONE: SuspectId = SuspectId([0xf1; 16]);
const OTHER: SuspectId = SuspectId([2; 16]);

async fn take(marks: &impl Suspects, suspect: SuspectId, returns: u32) -> u32 {
    marks.take(suspect, returns).await.expect("a message can be marked")
}

/// Each time by another worker, since the one before has died; whatever becomes of others.
pub async fn a_message_that_comes_back_from_being_alone_was_so_once_more<F: FreshMarks>(fresh: &F) {
    for (times, returns) in (0..).zip([3, 4, 9, u32::MAX]) {
        let marks = fresh.open().await;
        assert_eq!(take(&marks, ONE, returns).await, times);
    }
    assert_eq!(take(&fresh.open().await, OTHER, 7).await, 0);
}

/// A repetition after a lost reply, or one that looks the same and came back less often.
pub async fn one_that_did_not_come_back_was_not_taken_once_more<F: FreshMarks>(fresh: &F) {
    let marks = fresh.open().await;
    for (returns, times) in [(4, 0), (4, 0), (3, 0), (5, 1), (5, 1), (4, 1), (6, 2)] {
        assert_eq!(take(&marks, ONE, returns).await, times, "after {returns} returns");
    }
}

/// Also where there is no mark.
pub async fn a_message_that_had_its_answer_begins_anew<F: FreshMarks>(fresh: &F) {
    let marks = fresh.open().await;
    marks.clear(ONE).await.expect("a mark that is not there can be removed");
    for (returns, other) in (3..6).zip(0..) {
        assert_eq!(take(&marks, ONE, returns).await, 0);
        assert_eq!(take(&marks, OTHER, returns).await, other);
        marks.clear(ONE).await.expect("a mark can be removed");
    }
}
