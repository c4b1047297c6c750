//! When the flush is due: a cron schedule in UTC.

use domain::Timestamp;
use std::{io, thread};
use tokio::{
    runtime,
    sync::{mpsc, oneshot},
};
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};

/// A schedule of six fields (second, minute, hour, day of the month, month, day of the week), in UTC.
///
/// Where both days are restricted, both must hold. Due times are noticed within half a second.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlushSchedule {
    text: String,
}

/// Why there is no schedule, or why it does not run.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// It does not follow the grammar.
    #[error(
        "`{text}` is not a schedule: give six fields (second minute hour day month weekday, in UTC), such as \
         `0 0 * * * *` for every full hour or `0 */5 * * * *` for every five minutes"
    )]
    Malformed {
        /// What was given.
        text: String,
    },
    /// It names no time that ever comes, the 30th of February for example.
    #[error("the schedule `{text}` is never due: name a day that its months have")]
    NeverDue {
        /// What was given.
        text: String,
    },
    /// The thread of the schedule cannot be started.
    #[error("cannot start the schedule: {0}")]
    Thread(#[from] io::Error),
    /// The scheduler refuses.
    #[error("cannot start the schedule: {0}")]
    Scheduler(#[from] JobSchedulerError),
    /// The scheduler ended before it began.
    #[error("the thread of the schedule ended before it began")]
    Ended,
}

impl FlushSchedule {
    /// Reads a schedule.
    ///
    /// # Errors
    /// [`ScheduleError::Malformed`] and [`ScheduleError::NeverDue`]; both say what to write instead.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim().to_owned();
        let job = Job::new(&text, |_, _| ()).and_then(|mut job| job.job_data());
        match job {
            // The library's way to say that there is no next time.
            Ok(job) if job.next_tick == 0 => Err(ScheduleError::NeverDue { text }),
            Ok(_) => Ok(Self { text }),
            Err(_) => Err(ScheduleError::Malformed { text }),
        }
    }

    /// The schedule as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The next due time from now on; `None` where the library knows of none.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        let job = Job::new(&self.text, |_, _| ()).and_then(|mut job| job.job_data()).ok()?;
        let seconds = i64::try_from(job.next_tick).ok().filter(|seconds| *seconds > 0)?;
        Some(Timestamp::new(seconds, 0))
    }

    /// Starts to watch the clock; returns when it does.
    ///
    /// The scheduler leaves tasks behind when it is shut down, so it has a runtime of its own, which takes them with it.
    ///
    /// # Errors
    /// Where a thread or the scheduler cannot be started.
    pub async fn start(&self) -> Result<Ticks, ScheduleError> {
        let (ring, due) = mpsc::channel(1);
        let (stop, stopped) = oneshot::channel();
        let (started, start) = oneshot::channel();
        let runtime = runtime::Builder::new_current_thread().enable_time().build()?;
        let text = self.text.clone();
        let thread = thread::Builder::new().name("flush-schedule".to_owned()).spawn(move || {
            runtime.block_on(async {
                let scheduler = watch(&text, ring).await;
                let running = scheduler.is_ok();
                if started.send(scheduler.as_ref().map(|_| ()).map_err(Clone::clone)).is_ok() && running {
                    // Both a word and the loss of the other end are a reason to stop.
                    let _ = stopped.await;
                }
            });
        })?;
        start.await.map_err(|_| ScheduleError::Ended)??;
        Ok(Ticks { due, stop: Some(stop), thread: Some(thread) })
    }
}

/// A scheduler that rings at every due time.
async fn watch(text: &str, due: mpsc::Sender<()>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    scheduler.add(Job::new(text, move |_, _| ring(&due))?).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

/// A due time that nobody has taken yet stands for this one too.
fn ring(due: &mpsc::Sender<()>) {
    let _ = due.try_send(());
}

/// The due times of a schedule as they come. Dropped, it stops.
#[derive(Debug)]
pub struct Ticks {
    due: mpsc::Receiver<()>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Ticks {
    /// Waits for the next due time; however many passed since the last call, they come as one. `None` once the schedule
    /// has stopped. A call that is dropped takes nothing.
    pub async fn next(&mut self) -> Option<()> {
        self.due.recv().await
    }

    /// Stops; returns when nothing of it runs any more.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It waits for nothing but the word; had it panicked, `next` said that it stopped.
            let _ = thread.join();
        }
    }
}

impl Drop for Ticks {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use std::time::{Duration, Instant};

    #[test]
    fn schedules_have_six_fields_and_come_due() {
        for text in ["0 0 * * * *", "*/5 * * * * *", "0 30 2 * * MON-FRI", " 0 0 * * * * ", "0 0 0 29 2 *"] {
            assert!(FlushSchedule::parse(text).is_ok(), "{text}");
        }
        assert_eq!(FlushSchedule::parse(" 0 0 * * * * ").unwrap().as_str(), "0 0 * * * *");
        for text in ["", "hourly", "0 * * * *", "60 * * * * *", "* * * * * * * *", "0 0 0 0 * *", "\u{1f600}"]
        {
            let error = FlushSchedule::parse(text).unwrap_err();
            assert!(matches!(error, ScheduleError::Malformed { .. }), "{text}: {error}");
            assert!(error.to_string().contains("`0 0 * * * *` for every full hour"), "{error}");
        }
        assert!(matches!(FlushSchedule::parse("0 0 0 30 2 *"), Err(ScheduleError::NeverDue { .. })));
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the schedule goes by the clock of the machine")]
    fn the_next_due_time_is_the_next_full_hour() {
        let seconds = || chrono::Utc::now().timestamp();
        let before = seconds();
        let next = FlushSchedule::parse("0 0 * * * *").unwrap().next_due().unwrap().seconds();
        assert_eq!(next % 3_600, 0);
        assert!(next > before && next <= seconds() + 3_600, "{next}");
    }

    #[tokio::test]
    async fn every_due_time_rings() {
        let mut ticks = FlushSchedule::parse("* * * * * *").unwrap().start().await.unwrap();
        let start = Instant::now();
        for _ in 0..2 {
            tokio::time::timeout(Duration::from_secs(10), ticks.next())
                .await
                .expect("a second passes")
                .unwrap();
        }
        assert!(start.elapsed() > Duration::from_millis(400), "two seconds do not pass at once");
        ticks.stop();
    }

    #[tokio::test]
    async fn a_schedule_that_is_not_due_does_not_ring() {
        // The 29th of February at one second of the day.
        let mut ticks = FlushSchedule::parse("7 7 7 29 2 *").unwrap().start().await.unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(1_200), ticks.next()).await.is_err());
    }

    #[test]
    fn due_times_that_nobody_waits_for_come_as_one() {
        let (due, receiver) = mpsc::channel(1);
        let mut ticks = Ticks { due: receiver, stop: None, thread: None };
        for _ in 0..3 {
            ring(&due);
        }
        assert_eq!(ticks.next().now_or_never(), Some(Some(())));
        assert_eq!(ticks.next().now_or_never(), None);
        ring(&due);
        assert_eq!(ticks.next().now_or_never(), Some(Some(())));
        drop(due);
        assert_eq!(ticks.next().now_or_never(), Some(None));
    }

    #[tokio::test]
    async fn of_a_stopped_schedule_nothing_is_left() {
        let mut ticks = FlushSchedule::parse("0 0 0 29 2 *").unwrap().start().await.unwrap();
        ticks.end();
        // The scheduler's tasks held the other end.
        assert_eq!(ticks.next().now_or_never(), Some(None));
    }
}
