//! Dead letters in the hands of people: looked at, sent back, discarded.
//!
//! Whoever sends a letter back gives its pulse the identity that it had, so that it counts once however often the work is
//! cut off and begun again; [`fn@returned`] says how.

mod filter;
mod returned;

pub use filter::{LetterFilter, tenant_of};
pub use returned::{HEADER_REPLAYS, REPLAYS_MAX, replays, returned};

use crate::ports::{LetterPlace, LetterRun, PortError, Returned, StoredLetter};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use tokio::time::Instant;

/// A place with what people call it.
#[derive(Clone)]
pub struct NamedPlace {
    /// One word, for flags and questions.
    pub name: &'static str,
    /// For people.
    pub title: String,
    /// The place.
    pub place: Arc<dyn LetterPlace>,
}

/// How far a passage goes. Letters beyond it are left as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bound {
    /// The most letters to look at.
    pub letters: Option<u64>,
    /// How long it may take to look at more.
    pub time: Option<Duration>,
}

/// A letter as it is listed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The letter with the first of its bytes, at most [`Self::BODY_BYTES_MAX`].
    pub letter: StoredLetter,
    /// How many bytes there are.
    pub body_bytes: usize,
    /// What [`tenant_of`] read.
    pub tenant: Option<String>,
}

impl Seen {
    /// The most bytes of a body that are kept of a letter in a list.
    pub const BODY_BYTES_MAX: usize = 2_000;

    /// Keeps the beginning of the body.
    #[must_use]
    pub fn new(mut letter: StoredLetter) -> Self {
        let (tenant, body_bytes) = (tenant_of(&letter), letter.body.len());
        letter.body.truncate(Self::BODY_BYTES_MAX);
        letter.body.shrink_to_fit();
        Self { letter, body_bytes, tenant }
    }
}

/// What there is in a place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The latest of those that fit, the oldest first.
    pub letters: Vec<Seen>,
    /// How many fit, by their reasons.
    pub reasons: BTreeMap<String, u64>,
    /// How many fit.
    pub fitting: u64,
    /// How many were looked at.
    pub looked_at: u64,
    /// Whether that is all of them.
    pub complete: bool,
}

/// What is to become of letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// They go back to where they came from; with `force` also those that came back [`REPLAYS_MAX`] times.
    Replay {
        /// Whether the guard against circling is off.
        force: bool,
    },
    /// They are removed.
    Discard,
}

/// What became of letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Handled {
    /// How many were looked at.
    pub looked_at: u64,
    /// How many fit.
    pub fitting: u64,
    /// With how many it was done; in a dry run, with how many it would be.
    pub done: u64,
    /// How many came back too often and stay.
    pub circling: u64,
    /// How many cannot be sent back and stay, by the obstacle.
    pub obstructed: BTreeMap<String, u64>,
    /// Whether all were looked at.
    pub complete: bool,
}

/// Goes through a place and shows at most `limit` of the letters that fit, the latest.
///
/// # Errors
/// Those of the place.
pub async fn survey(
    place: &dyn LetterPlace,
    filter: &LetterFilter,
    limit: usize,
    bound: Bound,
) -> Result<Survey, PortError> {
    let (mut survey, mut latest) = (Survey::default(), VecDeque::new());
    let mut passage = Passage::begin(place, bound).await?;
    while let Some(letters) = passage.next().await? {
        survey.looked_at = passage.looked_at;
        for (_, letter) in letters.into_iter().filter(|(_, letter)| filter.fits(letter)) {
            survey.fitting += 1;
            *survey.reasons.entry(letter.reason.clone()).or_default() += 1;
            latest.push_back(Seen::new(letter));
            if latest.len() > limit {
                latest.pop_front();
            }
        }
    }
    survey.complete = passage.end().await?;
    survey.letters = latest.into();
    Ok(survey)
}

/// The first letter with this id; where there is none, whether all were looked at.
///
/// # Errors
/// Those of the place.
pub async fn find(
    place: &dyn LetterPlace,
    id: &str,
    bound: Bound,
) -> Result<(Option<StoredLetter>, bool), PortError> {
    let mut passage = Passage::begin(place, bound).await?;
    let mut found = None;
    while found.is_none()
        && let Some(letters) = passage.next().await?
    {
        found = letters.into_iter().map(|(_, letter)| letter).find(|letter| letter.id == id);
    }
    let complete = passage.end().await?;
    Ok((found, complete))
}

/// The first letters that are wanted, at most `limit`, each with the beginning of its bytes; and whether all were looked at.
///
/// # Errors
/// Those of the place.
pub async fn gather(
    place: &dyn LetterPlace,
    wanted: impl Fn(&StoredLetter) -> bool + Send,
    limit: usize,
    bound: Bound,
) -> Result<(Vec<StoredLetter>, bool), PortError> {
    let mut passage = Passage::begin(place, bound).await?;
    let mut found = Vec::new();
    while found.len() <= limit
        && let Some(letters) = passage.next().await?
    {
        let fitting = letters.into_iter().map(|(_, letter)| letter).filter(&wanted);
        found.extend(fitting.map(|letter| Seen::new(letter).letter));
    }
    let complete = passage.end().await? && found.len() <= limit;
    found.truncate(limit);
    Ok((found, complete))
}

/// Does what is wished with every letter that fits and was there when it began; a dry run only says what it would do.
///
/// A letter is removed when it is durable where it went. What was done is in `handled` also after an error; begin again.
///
/// # Errors
/// Those of the place.
pub async fn handle(
    place: &dyn LetterPlace,
    filter: &LetterFilter,
    wish: Wish,
    dry_run: bool,
    bound: Bound,
    handled: &mut Handled,
) -> Result<(), PortError> {
    let mut passage = Passage::begin(place, bound).await?;
    while let Some(letters) = passage.next().await? {
        handled.looked_at = passage.looked_at;
        let mut fitting = letters;
        fitting.retain(|(_, letter)| filter.fits(letter));
        handled.fitting += count(fitting.len());
        let done = match wish {
            Wish::Discard => {
                let numbers: Vec<u64> = fitting.iter().map(|(number, _)| *number).collect();
                if !dry_run && !numbers.is_empty() {
                    passage.run.remove(&numbers).await?;
                }
                numbers.len()
            }
            Wish::Replay { force } => {
                let going: Vec<Returned> = fitting
                    .into_iter()
                    .filter(|(_, letter)| may_go(letter, force, handled))
                    .map(|(number, letter)| returned(number, letter))
                    .collect();
                if !dry_run && !going.is_empty() {
                    passage.run.send_back(&going).await?;
                }
                going.len()
            }
        };
        handled.done += count(done);
    }
    handled.complete = passage.end().await?;
    Ok(())
}

fn may_go(letter: &StoredLetter, force: bool, handled: &mut Handled) -> bool {
    if let Some(obstacle) = &letter.obstacle {
        *handled.obstructed.entry(obstacle.clone()).or_default() += 1;
        return false;
    }
    let circles = !force && replays(&letter.envelope) >= REPLAYS_MAX;
    handled.circling += u64::from(circles);
    !circles
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// A run within its bound.
struct Passage {
    run: Box<dyn LetterRun>,
    letters_left: u64,
    until: Option<Instant>,
    looked_at: u64,
    complete: bool,
}

impl Passage {
    async fn begin(place: &dyn LetterPlace, bound: Bound) -> Result<Self, PortError> {
        let until = bound.time.map(|time| Instant::now() + time);
        let run = place.open().await?;
        Ok(Self {
            run,
            letters_left: bound.letters.unwrap_or(u64::MAX),
            until,
            looked_at: 0,
            complete: false,
        })
    }

    /// `None` at the end, and at the bound.
    async fn next(&mut self) -> Result<Option<Vec<(u64, StoredLetter)>>, PortError> {
        if self.letters_left == 0 || self.until.is_some_and(|until| Instant::now() >= until) {
            return Ok(None);
        }
        let mut letters = self.run.next().await?;
        self.complete = letters.is_empty();
        if self.complete {
            return Ok(None);
        }
        letters.truncate(usize::try_from(self.letters_left).unwrap_or(usize::MAX));
        self.letters_left -= count(letters.len());
        self.looked_at += count(letters.len());
        Ok(Some(letters))
    }

    /// Ends the run; whether all letters were given.
    async fn end(mut self) -> Result<bool, PortError> {
        self.run.close().await?;
        Ok(self.complete)
    }
}

#[cfg(test)]
mod tests;
