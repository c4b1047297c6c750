//! How often somebody may try to log in.

use super::super::Problem;
use axum::http::StatusCode;
use governor::{
    DefaultDirectRateLimiter, NotUntil, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
    state::keyed::HashMapStateStore,
};
use std::{net::IpAddr, num::NonZeroU32};

/// Attempts a minute of one address, and as many at once.
const OF_ONE: NonZeroU32 = NonZeroU32::new(10).expect("it is not zero");
/// Attempts a minute of all addresses together.
const OF_ALL: NonZeroU32 = NonZeroU32::new(120).expect("it is not zero");
/// The most addresses that are remembered.
const ADDRESSES_MAX: usize = 10_000;

type OfOne = RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>;

pub(super) struct Attempts {
    of_one: OfOne,
    of_all: DefaultDirectRateLimiter,
    clock: DefaultClock,
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            of_one: RateLimiter::hashmap(Quota::per_minute(OF_ONE)),
            of_all: RateLimiter::direct(Quota::per_minute(OF_ALL)),
            clock: DefaultClock::default(),
        }
    }
}

impl Attempts {
    /// Counts an attempt, also one that is refused.
    pub(super) fn check(&self, client: IpAddr) -> Result<(), Problem> {
        let client = network(client);
        if self.of_one.len() >= ADDRESSES_MAX {
            self.of_one.retain_recent();
        }
        // With so many addresses at work all of them share what is left.
        if self.of_one.len() < ADDRESSES_MAX {
            self.of_one.check_key(&client).map_err(|until| self.refusal(&until))?;
        }
        self.of_all.check().map_err(|until| self.refusal(&until))
    }

    fn refusal(&self, until: &NotUntil<<DefaultClock as Clock>::Instant>) -> Problem {
        let seconds = until.wait_time_from(self.clock.now()).as_secs() + 1;
        let detail = format!("too many attempts to log in: try again in {seconds} s");
        Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_logins", detail).retry_after(seconds)
    }
}

/// One client has a whole /64 of IPv6 to come from.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_is_held_back_and_others_are_not() {
        let attempts = Attempts::default();
        for _ in 0..OF_ONE.get() {
            attempts.check(address("2001:db8::1")).unwrap();
        }
        let refused = attempts.check(address("2001:db8::2")).unwrap_err();
        assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
        attempts.check(address("2001:db8:0:1::1")).unwrap();
    }

    #[test]
    fn many_addresses_together_are_held_back_too() {
        let attempts = Attempts::default();
        let refused = (0..1_000_u32).filter(|n| attempts.check(IpAddr::V4((*n).into())).is_err()).count();
        assert!(refused >= 1_000 - 130, "{refused}");
    }
}
