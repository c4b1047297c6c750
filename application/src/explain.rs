//! What became of one pulse, as far as the stores know.
//!
//! An accumulator remembers digests, not ids, so every identity that the id may stand for is asked for: the pulse's own
//! id, the id of its message with its place in it, the id of a `CloudEvent` with its source. They are scoped by tenant.

use crate::{
    dead_letters::{Bound, NamedPlace, gather, tenant_of},
    ports::{
        BooksAudit, IDENTITIES_MAX, Inbox, InboxEntry, InboxFilter, PortError, Registration, Remembered,
        RememberedIdentities, ShardRegistry, StoredLetter,
    },
};
use domain::{PulseIdentity, Shard, TenantId};
use futures_util::{TryStreamExt, future::join_all};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::timeout;

/// How many events of the inbox are looked at, the latest.
pub const LOOKED_AT: u32 = 1_000;
/// How far each place of dead letters is looked through, from the oldest on, and how long it may take in all.
const LETTERS: Bound = Bound { letters: Some(100_000), time: Some(Duration::from_secs(15)) };
const LETTERS_LIMIT: Duration = Duration::from_secs(25);
/// How many letters are shown of a place.
const LETTERS_SHOWN: usize = 100;
/// The headers that hold the id of a `CloudEvent` in binary mode.
const IDS: [&str; 4] = ["ce-id", "ce_id", "cloudEvents:id", "cloudEvents_id"];
/// How many events of the inbox are read at once.
const PAGE: u32 = 100;

/// The use case.
pub struct ExplainPulse {
    /// What the books know of the accumulator.
    pub registry: Arc<dyn ShardRegistry>,
    /// What it remembers.
    pub identities: Arc<dyn RememberedIdentities>,
    /// The tenants that the books know, for a question without one.
    pub books: Arc<dyn BooksAudit>,
    /// What came over HTTP.
    pub inbox: Option<Arc<dyn Inbox>>,
    /// How many pulses of a message are looked for by its id, where the tenant is known.
    pub items_max: u32,
}

/// Which pulse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Its id: its own, its message's, its `CloudEvent`'s, or that of its dead letter.
    pub id: String,
    /// Whose it is; without it, all tenants of the books are asked for.
    pub tenant: Option<TenantId>,
    /// The source of the `CloudEvent`, where it is one.
    pub source: Option<String>,
}

/// A pulse that was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Whose it is.
    pub tenant: TenantId,
    /// By which identity it is known.
    pub identity: PulseIdentity,
    /// What is remembered of it.
    pub remembered: Remembered,
}

/// What is known.
#[derive(Debug, Default)]
pub struct Explanation {
    /// Counted once each. Copies are recognised and not counted; whether any came, the stores do not keep.
    pub counted: Vec<Counted>,
    /// Letters of the id, each with the place that holds it.
    pub refused: Vec<(String, StoredLetter)>,
    /// Events of the inbox with the id.
    pub inbox: Vec<InboxEntry>,
    /// How many tenants were asked for.
    pub tenants: u64,
    /// What could not be looked at, or not as a whole.
    pub limits: Vec<String>,
}

impl Explanation {
    /// Whether nothing knows the id.
    #[must_use]
    pub const fn is_unknown(&self) -> bool {
        self.counted.is_empty() && self.refused.is_empty() && self.inbox.is_empty()
    }
}

impl ExplainPulse {
    /// What the accumulator and the inbox know of it; an inbox that cannot be looked at is said and does not hide the rest.
    ///
    /// # Errors
    /// Where the ledger or the accumulator does not answer: then nothing can be said.
    pub async fn run(&self, question: &Question) -> Result<Explanation, PortError> {
        let mut explanation = Explanation::default();
        if let Some(known) = self.registry.registration().await? {
            match &question.tenant {
                Some(tenant) => self.of_tenant(&known, question, tenant, &mut explanation).await?,
                None => self.of_all_tenants(&known, question, &mut explanation).await?,
            }
        }
        if let Some(inbox) = &self.inbox {
            add_events(inbox.as_ref(), question, &mut explanation).await;
        }
        Ok(explanation)
    }

    async fn of_tenant(
        &self,
        known: &Registration,
        question: &Question,
        tenant: &TenantId,
        explanation: &mut Explanation,
    ) -> Result<(), PortError> {
        explanation.tenants = 1;
        let identities = candidates(question, self.items_max);
        let asked = identities.into_iter().map(|identity| (tenant.clone(), identity)).collect();
        self.ask(known, known.shards.shard_of(tenant), asked, explanation).await
    }

    async fn of_all_tenants(
        &self,
        known: &Registration,
        question: &Question,
        explanation: &mut Explanation,
    ) -> Result<(), PortError> {
        explanation.limits.push(
            "only tenants that are in the books were asked for, and only the first pulse of a message: name the tenant"
                .to_owned(),
        );
        let identities = candidates(question, 1);
        let mut tenants = self.books.cut(&[]).await?.usage;
        while let Some(part) = tenants.try_next().await? {
            let mut by_shard: BTreeMap<Shard, Vec<(TenantId, PulseIdentity)>> = BTreeMap::new();
            for tenant in part.into_iter().filter_map(|sum| sum.tenant.ok()) {
                explanation.tenants += 1;
                let asked = identities.iter().map(|identity| (tenant.clone(), identity.clone()));
                by_shard.entry(known.shards.shard_of(&tenant)).or_default().extend(asked);
            }
            for (shard, asked) in by_shard {
                self.ask(known, shard, asked, explanation).await?;
            }
        }
        Ok(())
    }

    async fn ask(
        &self,
        known: &Registration,
        shard: Shard,
        asked: Vec<(TenantId, PulseIdentity)>,
        explanation: &mut Explanation,
    ) -> Result<(), PortError> {
        let key = known.accumulator.identity_key();
        for asked in asked.chunks(IDENTITIES_MAX) {
            let digests: Vec<_> =
                asked.iter().map(|(tenant, identity)| key.digest(tenant, identity)).collect();
            for (place, remembered) in self.identities.remembered(shard, &digests).await? {
                if let Some((tenant, identity)) = asked.get(place).cloned() {
                    explanation.counted.push(Counted { tenant, identity, remembered });
                }
            }
        }
        Ok(())
    }
}

impl Explanation {
    /// Adds what the places of dead letters hold of it; one that cannot be looked at is said and does not hide the rest.
    pub async fn add_letters(&mut self, places: &[NamedPlace], question: &Question) {
        let looks = places.iter().map(|place| async {
            let look = gather(place.place.as_ref(), |letter| names(letter, question), LETTERS_SHOWN, LETTERS);
            (&place.title, timeout(LETTERS_LIMIT, look).await)
        });
        for (title, looked) in join_all(looks).await {
            match looked {
                Ok(Ok((letters, complete))) => {
                    self.refused.extend(letters.into_iter().map(|letter| (title.clone(), letter)));
                    if !complete {
                        self.limits.push(format!("not all of the dead letters in {title} were looked at"));
                    }
                }
                Ok(Err(error)) => {
                    self.limits.push(format!("the dead letters in {title} were not looked at: {error}"));
                }
                Err(_) => {
                    let limit = format!("the dead letters in {title} did not come within {LETTERS_LIMIT:?}");
                    self.limits.push(limit);
                }
            }
        }
    }
}

/// Every identity that the id may stand for.
fn candidates(question: &Question, items: u32) -> Vec<PulseIdentity> {
    let id = question.id.as_str();
    let mut candidates = vec![PulseIdentity::Id(id.into())];
    if let Some(source) = &question.source {
        candidates.push(PulseIdentity::CloudEvent { source: source.as_str().into(), id: id.into() });
    }
    candidates.extend((0..items).map(|item| PulseIdentity::Message { id: id.into(), item }));
    candidates
}

/// Whether a letter is of the id: its own, its message's or event's, or one that its bytes hold as a JSON text; and of the
/// tenant where one is named.
fn names(letter: &StoredLetter, question: &Question) -> bool {
    let holds = |text: &str| {
        let quoted = serde_json::json!(text).to_string();
        letter.body.windows(quoted.len()).any(|bytes| bytes == quoted.as_bytes())
    };
    let id = question.id.as_str();
    if letter.id == id {
        return true;
    }
    let headers =
        || letter.envelope.headers.iter().any(|(name, value)| IDS.contains(&name.as_str()) && value == id);
    let of_message = letter.envelope.message_id.as_deref() == Some(id) || headers();
    let of_tenant =
        |tenant: &TenantId| tenant_of(letter).as_deref() == Some(tenant.as_str()) || holds(tenant.as_str());
    (of_message || holds(id)) && question.tenant.as_ref().is_none_or(of_tenant)
}

async fn add_events(inbox: &dyn Inbox, question: &Question, explanation: &mut Explanation) {
    let mut filter = InboxFilter { status: None, source: None, before: None, limit: PAGE };
    let mut looked_at = 0;
    loop {
        let page = match inbox.list(&filter).await {
            Ok(page) => page,
            Err(error) => {
                explanation.limits.push(format!("the inbox was not looked at: {error}"));
                return;
            }
        };
        looked_at += page.len();
        let last = page.last().map(|entry| entry.id);
        let full = page.len() >= PAGE as usize;
        explanation.inbox.extend(page.into_iter().filter(|entry| entry.event_id == question.id));
        match last.filter(|_| full && looked_at < LOOKED_AT as usize) {
            Some(last) => filter.before = Some(last),
            None => break,
        }
    }
    if looked_at >= LOOKED_AT as usize {
        explanation.limits.push(format!("only the latest {LOOKED_AT} events of the inbox were looked at"));
    }
}

#[cfg(test)]
mod tests;
