//! Named points where a build for tests may die as by `kill -9`. In every other build they are nothing.
//!
//! `FAILPOINTS` says which points kill and when, in the words of the crate `fail`: `commit_before=3*off->return` dies at
//! the fourth pass, `commit_before=1%return` at one of a hundred. `PULSE_CRASH_LOG` names a file that gets a line with the
//! point's name before the end.

#[cfg(not(feature = "failpoints"))]
pub use off::{hit, hit_by, within};
#[cfg(feature = "failpoints")]
pub use on::{hit, hit_by, within};

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature `failpoints` is for builds that test: no release may die on request");

#[cfg(not(feature = "failpoints"))]
mod off {
    /// Nothing.
    #[inline]
    pub const fn hit(_name: &'static str) {}

    /// Nothing.
    #[inline]
    pub const fn hit_by(_name: &'static str, _message: &[u8]) {}

    /// The call and nothing else.
    #[inline]
    pub fn within<F: Future>(_name: &'static str, call: F) -> F {
        call
    }
}

#[cfg(feature = "failpoints")]
mod on {
    use std::{
        fs::File,
        hash::{BuildHasher, RandomState},
        io::Write,
        pin::pin,
        sync::Once,
        time::Duration,
    };
    use tokio::{select, time::sleep};

    /// Up to how long after its beginning a call is cut off.
    const WITHIN_MICROS: u64 = 3_000;

    /// Dies here where the point's turn has come.
    pub fn hit(name: &'static str) {
        if is_due(name) {
            die(name);
        }
    }

    /// Dies here where the message holds the text that the point was given: `poison=return(TEXT)`.
    pub fn hit_by(name: &'static str, message: &[u8]) {
        setup();
        let is_in =
            |text: &str| !text.is_empty() && message.windows(text.len()).any(|part| part == text.as_bytes());
        if fail::eval(name, |text| text.is_some_and(|text| is_in(&text))) == Some(true) {
            die(name);
        }
    }

    /// Makes the call. Where the point's turn has come it dies a moment after the call has begun: what it asks for has
    /// taken effect or not, and nobody sees the answer.
    pub async fn within<F: Future>(name: &'static str, call: F) -> F::Output {
        if !is_due(name) {
            return call.await;
        }
        let moment = Duration::from_micros(RandomState::new().hash_one(name) % WITHIN_MICROS);
        let call = pin!(call);
        select! {
            biased;
            _ = call => {}
            () = sleep(moment) => {}
        }
        die(name)
    }

    fn setup() {
        static SETUP: Once = Once::new();
        // The scenario ends with its guard: it is for the whole life of the process.
        SETUP.call_once(|| std::mem::forget(fail::FailScenario::setup()));
    }

    fn is_due(name: &str) -> bool {
        setup();
        fail::eval(name, |_| ()).is_some()
    }

    fn die(name: &str) -> ! {
        let log = std::env::var_os("PULSE_CRASH_LOG");
        if let Some(mut log) = log.and_then(|path| File::options().create(true).append(true).open(path).ok())
        {
            // One write, so that the lines of processes that die together stay whole.
            let _ = log.write_all(format!("{name}\n").as_bytes());
        }
        std::process::abort()
    }
}
