//! When two pulses are the same pulse: identities, their digests, and fingerprints of the content.

use crate::{Pulse, TenantId};
use siphasher::sip128::{Hasher128, SipHasher13};
use std::{fmt, hash::Hasher};

/// What makes a pulse the same as another of the same tenant.
///
/// The kinds never meet: an id `x` and a message id `x` are different identities.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PulseIdentity {
    /// The `id` in the pulse itself.
    Id(Box<str>),
    /// The message's own id where the pulse carries none, and the place of the pulse in the message, from 0.
    Message {
        /// AMQP `message_id`, or what stands for it.
        id: Box<str>,
        /// Which pulse of the message.
        item: u32,
    },
    /// `source` and `id` of a `CloudEvent`, which together are unique (`CloudEvents` 1.0, section 3.1).
    CloudEvent {
        /// The context attribute `source`.
        source: Box<str>,
        /// The context attribute `id`.
        id: Box<str>,
    },
}

/// The name of an accumulator: sixteen random bytes, made once, kept with it and in the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AccumulatorId([u8; 16]);

impl AccumulatorId {
    /// Takes sixteen random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Reads the 32 hexadecimal digits that [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(|value| Self(value.to_be_bytes()))
    }

    /// The key of the identities that this accumulator knows: fixed for its life.
    #[must_use]
    pub const fn identity_key(self) -> IdentityKey {
        IdentityKey(self.0)
    }
}

impl fmt::Display for AccumulatorId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for AccumulatorId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AccumulatorId({self})")
    }
}

/// The identity of a pulse within its tenant as sixteen bytes: what the accumulators remember.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PulseDigest(pub [u8; 16]);

/// Six bytes of the content of a pulse: two pulses with one identity and different fingerprints are a conflict.
///
/// Different contents share a fingerprint once in 2^48.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 6]);

/// The key of the digests: `SipHash` 1-3 with 128 bits, different for each accumulator.
///
/// Ids of one tenant meet ids of another by chance only, once in 2^64 pulses or so. The key is not a secret: it is the
/// accumulator's id, which logs and the ledger show.
#[derive(Clone, Copy, Debug)]
pub struct IdentityKey([u8; 16]);

impl IdentityKey {
    /// The digest of an identity, scoped by its tenant.
    #[must_use]
    pub fn digest(&self, tenant: &TenantId, identity: &PulseIdentity) -> PulseDigest {
        let mut hasher = BufferedHasher::new(SipHasher13::new_with_key(&self.0));
        write_text(&mut hasher, tenant.as_str());
        match identity {
            PulseIdentity::Id(id) => {
                hasher.write(&[1]);
                write_text(&mut hasher, id);
            }
            PulseIdentity::Message { id, item } => {
                hasher.write(&[2]);
                write_text(&mut hasher, id);
                hasher.write(&item.to_le_bytes());
            }
            PulseIdentity::CloudEvent { source, id } => {
                hasher.write(&[3]);
                write_text(&mut hasher, source);
                write_text(&mut hasher, id);
            }
        }
        PulseDigest(hasher.finish())
    }

    /// The fingerprint of tenant, SKU, unit, amount and, where the pulse carries one, its own time.
    ///
    /// The amount counts by its value (`1.0` is `1`), the time by the instant, and the time of arrival not at all.
    ///
    /// # Panics
    /// Never: a hash of sixteen bytes holds six.
    #[must_use]
    pub fn fingerprint(&self, pulse: &Pulse) -> Fingerprint {
        let mut hasher = BufferedHasher::new(SipHasher13::new_with_key(&self.0));
        hasher.write(&[0]);
        write_text(&mut hasher, pulse.tenant.as_str());
        write_text(&mut hasher, pulse.product_sku.as_str());
        write_text(&mut hasher, pulse.use_unity.as_str());
        hasher.write(&pulse.amount.nanos().to_le_bytes());
        if let Some(time) = pulse.occurred_at {
            hasher.write(&time.seconds().to_le_bytes());
            hasher.write(&time.nanos().to_le_bytes());
        }
        let hash = hasher.finish();
        Fingerprint(*hash.first_chunk().expect("sixteen bytes hold six"))
    }
}

/// The parts as sixteen bytes that are the same on every machine; not secret, and only as strong as an unkeyed hash.
///
/// For names that must come out the same again, like those of dead letters.
#[must_use]
pub fn content_hash(parts: &[&[u8]]) -> [u8; 16] {
    let mut hasher = BufferedHasher::new(SipHasher13::new());
    for part in parts {
        write_bytes(&mut hasher, part);
    }
    hasher.finish()
}

/// Gathers short pieces: the hasher takes one long piece in a fraction of the time of many short ones.
struct BufferedHasher {
    hasher: SipHasher13,
    buffer: [u8; 160],
    filled: usize,
}

impl BufferedHasher {
    const fn new(hasher: SipHasher13) -> Self {
        Self { hasher, buffer: [0; 160], filled: 0 }
    }

    fn write(&mut self, bytes: &[u8]) {
        if bytes.len() > self.buffer.len() - self.filled {
            self.flush();
        }
        match self.buffer[self.filled..].get_mut(..bytes.len()) {
            Some(room) => {
                room.copy_from_slice(bytes);
                self.filled += bytes.len();
            }
            None => self.hasher.write(bytes),
        }
    }

    fn flush(&mut self) {
        self.hasher.write(&self.buffer[..self.filled]);
        self.filled = 0;
    }

    fn finish(mut self) -> [u8; 16] {
        self.flush();
        self.hasher.finish128().as_bytes()
    }
}

fn write_text(hasher: &mut BufferedHasher, text: &str) {
    write_bytes(hasher, text.as_bytes());
}

/// Length first, so that no two lists of parts run into the same bytes. Written as slices, whose byte order is fixed.
fn write_bytes(hasher: &mut BufferedHasher, bytes: &[u8]) {
    hasher.write(&(bytes.len() as u64).to_le_bytes());
    hasher.write(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Amount, HourWindow, ProductSku, Timestamp, UsageUnit};

    fn key() -> IdentityKey {
        AccumulatorId::from_bytes(*b"0123456789abcdef").identity_key()
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn pulse(amount: &str, occurred_at: Option<Timestamp>) -> Pulse {
        Pulse {
            tenant: tenant("t"),
            product_sku: ProductSku::new("s").unwrap(),
            use_unity: UsageUnit::new("KB").unwrap(),
            amount: Amount::parse(amount).unwrap(),
            identity: None,
            occurred_at,
            hour: HourWindow::from_number(7),
        }
    }

    #[test]
    fn kinds_tenants_and_parts_of_identities_never_meet() {
        let identities = [
            PulseIdentity::Id("a".into()),
            PulseIdentity::Message { id: "a".into(), item: 0 },
            PulseIdentity::Message { id: "a".into(), item: 1 },
            PulseIdentity::CloudEvent { source: "a".into(), id: "bc".into() },
            PulseIdentity::CloudEvent { source: "ab".into(), id: "c".into() },
        ];
        let mut digests: Vec<_> = ["t", "u"]
            .iter()
            .flat_map(|name| identities.iter().map(|identity| key().digest(&tenant(name), identity)))
            .collect();
        digests.sort_unstable();
        digests.dedup();
        assert_eq!(digests.len(), 10);
    }

    #[test]
    fn digests_are_the_same_on_every_machine_and_in_every_version() {
        let identities = [
            PulseIdentity::Id("a".into()),
            PulseIdentity::Message { id: "a".into(), item: 1 },
            PulseIdentity::CloudEvent { source: "a".into(), id: "b".into() },
        ];
        let digests = identities.map(|identity| key().digest(&tenant("t"), &identity));
        let expected = [
            "b9e50f4b749a52dd93a3ef74701e8cb8",
            "bf194ecb161beab9490f732aec782974",
            "12a6abe9a273540bfb26e3684c510500",
        ];
        assert_eq!(digests.map(|digest| AccumulatorId::from_bytes(digest.0).to_string()), expected);
        let fingerprint = key().fingerprint(&pulse("1.5", Some(Timestamp::new(7, 0))));
        assert_eq!(fingerprint.0, [118, 178, 186, 13, 92, 210]);
        assert_eq!(
            AccumulatorId::from_bytes(content_hash(&[b"a", b"b"])).to_string(),
            "e3bd9855f9eafe6d40f6ad30421baca8"
        );
    }

    #[test]
    fn the_fingerprint_follows_the_value_and_not_its_spelling() {
        let plain = key().fingerprint(&pulse("1", None));
        assert_eq!(plain, key().fingerprint(&pulse("1.000", None)));
        assert_ne!(plain, key().fingerprint(&pulse("1.001", None)));
        assert_ne!(plain, key().fingerprint(&pulse("1", Some(Timestamp::new(0, 0)))));
    }

    proptest::proptest! {
        #[test]
        fn pieces_of_any_length_come_to_the_hash_of_the_whole(
            pieces in proptest::collection::vec(proptest::collection::vec(0_u8.., 0..400), 0..8),
        ) {
            let mut buffered = BufferedHasher::new(SipHasher13::new());
            for piece in &pieces {
                buffered.write(piece);
            }
            let whole = SipHasher13::new().hash(&pieces.concat()).as_bytes();
            proptest::prop_assert_eq!(buffered.finish(), whole);
        }
    }

    #[test]
    fn an_accumulator_id_reads_back() {
        let id = AccumulatorId::from_bytes(*b"\x00123456789abcdef");
        assert_eq!(AccumulatorId::parse(&id.to_string()), Some(id));
        assert_eq!(AccumulatorId::parse("+0000000000000000000000000000000"), None);
    }
}
