//! What became of the lines: counts, and each refused line with its place and the reason.

use application::{
    ingest::TallySnapshot,
    ports::{DeadLetter, DeadLetters, Envelope, PortError},
};
use async_trait::async_trait;
use domain::Rejection;
use infrastructure::file::{FileLine, HEADER_FILE, HEADER_LINE, LINE_BYTES_MAX};
use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

/// How many refused pulses are listed; the rest is only counted.
const LISTED_MAX: usize = 1_000;

/// Collects what is refused.
#[derive(Debug, Default)]
pub(super) struct Rejects(Mutex<RejectList>);

/// What was refused.
#[derive(Debug, Default)]
pub(super) struct RejectList {
    count: u64,
    listed: Vec<String>,
}

impl Rejects {
    /// Notes a refused pulse of a line.
    pub(super) fn add(&self, envelope: &Envelope, item: Option<u32>, rejection: &Rejection) {
        let mut list = self.0.lock().expect("no holder of this lock can panic");
        list.count += 1;
        if list.listed.len() < LISTED_MAX {
            let of = |name| {
                envelope.headers.iter().find(|(header, _)| header == name).map_or("?", |(_, value)| value)
            };
            let place = format!("{}:{}", of(HEADER_FILE), of(HEADER_LINE));
            // A line that holds one pulse has no use for its number.
            let item = item.filter(|item| *item > 0).map(|item| format!(", item {item}")).unwrap_or_default();
            list.listed.push(format!("{}{item}: {}", printable(&place), printable(&rejection.to_string())));
        }
    }

    /// What was noted by now.
    pub(super) fn take(&self) -> RejectList {
        mem::take(&mut self.0.lock().expect("no holder of this lock can panic"))
    }

    /// Dead letters that are noted here once they are stored there.
    pub(super) fn before(self: &Arc<Self>, store: Option<Arc<dyn DeadLetters>>) -> Arc<dyn DeadLetters> {
        Arc::new(Noted { rejects: Arc::clone(self), store })
    }
}

struct Noted {
    rejects: Arc<Rejects>,
    store: Option<Arc<dyn DeadLetters>>,
}

#[async_trait]
impl DeadLetters for Noted {
    async fn publish(&self, letters: &[DeadLetter]) -> Result<(), PortError> {
        if let Some(store) = &self.store {
            store.publish(letters).await?;
        }
        for letter in letters {
            self.rejects.add(&letter.envelope, letter.item, &letter.rejection);
        }
        Ok(())
    }
}

/// The summary of a run.
pub(super) struct Report {
    /// Lines that were read, without empty ones and those that are too long.
    pub(super) lines: u64,
    /// Lines that were published; `None` where they were counted here.
    pub(super) published: Option<u64>,
    /// What the engine did.
    pub(super) tally: TallySnapshot,
    /// What was refused.
    pub(super) rejects: RejectList,
    /// Lines that were too long to be read, and where the first of them are.
    pub(super) too_long: (u64, Vec<FileLine>),
    /// How long it took.
    pub(super) elapsed: Duration,
}

impl Report {
    /// Prints what was refused, then one line with the counts.
    pub(super) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let (too_long, places) = &self.too_long;
        for place in places {
            let place = printable(&place.to_string());
            writeln!(out, "rejected {place}: malformed: the line has more than {LINE_BYTES_MAX} bytes")?;
        }
        for line in &self.rejects.listed {
            writeln!(out, "rejected {line}")?;
        }
        let rejected = self.rejects.count + too_long;
        let listed = (self.rejects.listed.len() + places.len()) as u64;
        if rejected > listed {
            writeln!(out, "rejected: {} more, not listed", rejected - listed)?;
        }
        let read = self.lines + too_long;
        write!(out, "{read} lines read, ")?;
        match self.published {
            Some(published) => write!(out, "{published} published and confirmed, ")?,
            None => {
                write!(out, "{} pulses counted, {} duplicates, ", self.tally.counted, self.tally.duplicates)?;
            }
        }
        let seconds = self.elapsed.as_secs_f64();
        writeln!(out, "{rejected} rejected, in {seconds:.1} s ({:.0} lines/s)", per_second(read, seconds))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// The text without what could steer a terminal: it comes from the input.
fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut shown, character| {
        if character.is_control() {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
        shown
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Reason;

    fn envelope(line: u64) -> Envelope {
        let headers = [(HEADER_FILE, "a\u{1b}[2J.ndjson".to_owned()), (HEADER_LINE, line.to_string())];
        Envelope {
            headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            ..Envelope::default()
        }
    }

    fn printed(rejects: &Rejects, published: Option<u64>, too_long: (u64, Vec<FileLine>)) -> String {
        let report = Report {
            lines: 3_000,
            published,
            tally: TallySnapshot { counted: 1_700, duplicates: 12, ..TallySnapshot::default() },
            rejects: rejects.take(),
            too_long,
            elapsed: Duration::from_millis(1_500),
        };
        let mut out = Vec::new();
        report.print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_refused_line_is_listed_with_its_place_and_reason_up_to_a_limit() {
        let rejects = Rejects::default();
        rejects.add(&envelope(7), Some(0), &Rejection::new(Reason::Malformed, "not JSON: \u{7}"));
        rejects.add(&envelope(8), Some(3), &Rejection::new(Reason::NotPositive, "used_amount is 0"));
        let too_long = (1, vec![FileLine { file: "b".into(), line: 2 }]);
        insta::assert_snapshot!(printed(&rejects, None, too_long));
        for line in 0..1_005 {
            rejects.add(&envelope(line), None, &Rejection::new(Reason::Malformed, "x"));
        }
        let text = printed(&rejects, Some(1_995), (0, Vec::new()));
        assert!(text.ends_with(
            "rejected: 5 more, not listed\n\
             3000 lines read, 1995 published and confirmed, 1005 rejected, in 1.5 s (2000 lines/s)\n"
        ));
    }
}
