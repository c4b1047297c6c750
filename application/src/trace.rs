//! W3C trace context: which trace a message belongs to, as its headers say it, and as logs and spans tell it.
//!
//! What cannot be read is no context and costs nothing else; nothing here looks at a message before something is told
//! of it.

use crate::ports::Envelope;
use std::{
    fmt::{self, Display},
    num::{NonZeroU64, NonZeroU128},
    sync::OnceLock,
};
use tracing::{Span, field::display};

#[cfg(test)]
mod tests;

/// The header that names the trace and the caller's span (W3C Trace Context, section 3.2).
pub const TRACEPARENT: &str = "traceparent";
/// The header in which systems on the way keep what they want back (section 3.3). It is passed on as it came.
pub const TRACESTATE: &str = "tracestate";

/// `00-`, 32 digits, `-`, 16 digits, `-`, 2 digits.
const TRACEPARENT_BYTES: usize = 55;
/// What may be set in the flags: sampled, and that the trace id is random. Others are not passed on.
const FLAGS: u8 = 0b11;
/// What every system must be able to pass on; a longer state is left behind.
const STATE_BYTES_MAX: usize = 512;
const STATE_MEMBERS_MAX: usize = 32;

/// Names a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub NonZeroU128);

impl Display for TraceId {
    /// 32 hexadecimal digits in lower case.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

/// A place in a trace: a span, under which others may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: TraceId,
    /// The span in it.
    pub span_id: NonZeroU64,
    flags: u8,
    state: Option<String>,
}

impl TraceContext {
    /// The beginning of a trace; `sampled` says whether it is recorded anywhere.
    #[must_use]
    pub const fn new(trace_id: TraceId, span_id: NonZeroU64, sampled: bool) -> Self {
        Self { trace_id, span_id, flags: sampled as u8, state: None }
    }

    /// What headers say, names in any case; `None` where there is nothing, or nothing that can be read. Nobody can tell
    /// which of two parents is right, so two are none.
    pub fn of_headers<'a>(headers: impl Iterator<Item = (&'a str, &'a str)> + Clone) -> Option<Self> {
        let is_named =
            |wanted: &'static str| move |(name, _): &(&str, &str)| name.eq_ignore_ascii_case(wanted);
        let mut parents = headers.clone().filter(is_named(TRACEPARENT));
        let (_, parent) = parents.next()?;
        let context = Self::parse(parent).filter(|_| parents.next().is_none())?;
        Some(context.with_state(headers.filter(is_named(TRACESTATE)).map(|(_, value)| value)))
    }

    /// What a message says.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Option<Self> {
        Self::of_headers(envelope.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    }

    /// Reads the value of [`TRACEPARENT`], of this version or a later one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.trim_matches([' ', '\t']).as_bytes();
        let (known, rest) = bytes.split_at_checked(TRACEPARENT_BYTES)?;
        let [a, b, b'-', ids @ ..] = known else { return None };
        let version = u8::try_from(hex(&[*a, *b])?).ok()?;
        // A later version may say more after what this one says.
        let ends = if version == 0 { rest.is_empty() } else { matches!(rest, [] | [b'-', ..]) };
        if version == u8::MAX || !ends || ids[32] != b'-' || ids[49] != b'-' {
            return None;
        }
        Some(Self {
            trace_id: TraceId(NonZeroU128::new(hex(&ids[..32])?)?),
            span_id: NonZeroU64::new(u64::try_from(hex(&ids[33..49])?).ok()?)?,
            flags: u8::try_from(hex(&ids[50..])?).ok()? & FLAGS,
            state: None,
        })
    }

    fn with_state<'a>(mut self, values: impl Iterator<Item = &'a str> + Clone) -> Self {
        // Each but the last has a comma behind it.
        if values.clone().map(|value| value.len() + 1).sum::<usize>() <= STATE_BYTES_MAX + 1 {
            let state = values.collect::<Vec<_>>().join(",");
            self.state = Some(state).filter(|state| is_state(state));
        }
        self
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn at(&self, span_id: NonZeroU64) -> Self {
        Self { span_id, ..self.clone() }
    }

    /// Whether the trace is recorded somewhere.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }

    /// The same, recorded or not.
    #[must_use]
    pub fn sampled(mut self, sampled: bool) -> Self {
        self.flags = self.flags & !1 | u8::from(sampled);
        self
    }

    /// What systems on the way want back.
    #[must_use]
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// The headers by which whoever comes next goes on with the trace.
    #[must_use]
    pub fn headers(&self) -> Vec<(String, String)> {
        let parent = format!("00-{}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags);
        let state = self.state.clone().map(|state| (TRACESTATE.to_owned(), state));
        [(TRACEPARENT.to_owned(), parent)].into_iter().chain(state).collect()
    }
}

/// Whether a header is one of the two.
#[must_use]
pub fn is_trace_header(name: &str) -> bool {
    name.eq_ignore_ascii_case(TRACEPARENT) || name.eq_ignore_ascii_case(TRACESTATE)
}

/// Digits in lower case, at most 32.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number: u128, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u128::from(digit))
    })
}

/// Members of a name and a value, of printable ASCII, at least one.
fn is_state(text: &str) -> bool {
    let members = text.split(',').map(|member| member.trim_matches([' ', '\t']));
    let printable = text.bytes().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    let named = |member: &str| member.is_empty() || member.find('=').is_some_and(|place| place > 0);
    let known = members.clone().count() <= STATE_MEMBERS_MAX && members.clone().all(named);
    printable && known && members.clone().any(|member| !member.is_empty())
}

/// The first few traces of some messages, each once.
#[derive(Debug, Default)]
pub struct Traces(Vec<TraceContext>);

impl Traces {
    /// How many are told.
    pub const MAX: usize = 32;

    /// Those of these messages.
    pub fn of<'a>(envelopes: impl Iterator<Item = &'a Envelope>) -> Self {
        let mut traces: Vec<TraceContext> = Vec::new();
        for context in envelopes.filter_map(TraceContext::of) {
            if traces.iter().all(|trace| trace.trace_id != context.trace_id) {
                traces.push(context);
                if traces.len() == Self::MAX {
                    break;
                }
            }
        }
        Self(traces)
    }

    /// The trace, where there is exactly one: for the field `trace_id` of a log line.
    #[must_use]
    pub fn one(&self) -> Option<TraceId> {
        if let [only] = self.0.as_slice() { Some(only.trace_id) } else { None }
    }

    /// All of them, where there are several: for the field `trace_ids`.
    #[must_use]
    pub fn several(&self) -> Option<&Self> {
        (self.0.len() > 1).then_some(self)
    }
}

impl Display for Traces {
    /// The trace ids, with commas between them.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().enumerate().try_for_each(|(place, context)| {
            formatter.write_str(if place == 0 { "" } else { "," })?;
            context.trace_id.fmt(formatter)
        })
    }
}

/// Ties an exported span to a place in another trace.
pub type Link = fn(&Span, &TraceContext);

/// As global as the subscriber of logs and spans is, and set together with it.
static LINK: OnceLock<Link> = OnceLock::new();

/// Has the spans of batches linked to the traces of their messages; only the first call counts.
pub fn link_with(link: Link) {
    let _ = LINK.set(link);
}

/// Says which traces the messages of a span belong to: in its field `trace_ids`, and as links where it is exported. It is
/// the child of none of them. Where nobody hears of the span no message is looked at.
pub fn link<'a>(span: &Span, envelopes: impl Iterator<Item = &'a Envelope>) {
    if span.is_disabled() {
        return;
    }
    let traces = Traces::of(envelopes);
    if !traces.0.is_empty() {
        span.record("trace_ids", display(&traces));
    }
    if let Some(link) = LINK.get() {
        traces.0.iter().for_each(|context| link(span, context));
    }
}
