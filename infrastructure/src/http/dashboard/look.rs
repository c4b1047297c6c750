//! One look at everything, shared by all who look at the same time.

use crate::schedule::FlushSchedule;
use application::overview::{GatherOverview, Overview, RateWindow, Rates};
use domain::Timestamp;
use std::{sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::Instant};

/// For how long a look is good for others too, so that many open pages ask the parts no more often than one.
const GOOD_FOR: Duration = Duration::from_secs(1);

/// What the pages look at.
pub struct Dashboard {
    gather: GatherOverview,
    schedule: Option<FlushSchedule>,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    look: Option<(Instant, Arc<Look>)>,
    rates: RateWindow,
}

/// What was seen.
#[derive(Clone, Debug)]
pub(super) struct Look {
    pub(super) overview: Overview,
    /// `None` until there are two looks to compare.
    pub(super) rates: Option<Rates>,
    /// `None` where nobody knows the schedule.
    pub(super) next_flush: Option<Timestamp>,
}

impl Dashboard {
    /// Looks at what `gather` gathers; `schedule` is by what the cron flushes.
    #[must_use]
    pub fn new(gather: GatherOverview, schedule: Option<FlushSchedule>) -> Self {
        Self { gather, schedule, last: Mutex::default() }
    }

    /// A look that is no older than a second.
    pub(super) async fn look(&self) -> Arc<Look> {
        let mut last = self.last.lock().await;
        if let Some((at, look)) = &last.look
            && at.elapsed() < GOOD_FOR
        {
            return Arc::clone(look);
        }
        let overview = self.gather.run().await;
        let now = Instant::now();
        let counting = overview.counting.answer.as_ref().ok();
        let rates = counting.and_then(|counting| last.rates.note(now, counting.counts));
        let next_flush = self.schedule.as_ref().and_then(FlushSchedule::next_due);
        let look = Arc::new(Look { overview, rates, next_flush });
        last.look = Some((now, Arc::clone(&look)));
        look
    }
}
