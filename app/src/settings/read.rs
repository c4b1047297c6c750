//! Reads values by the table and collects every fault instead of stopping at the first.

use super::{Environment, Fault, Faults, table};
use secrecy::SecretString;
use std::{ops::RangeInclusive, str::FromStr, time::Duration};
use url::Url;

const NANOS_PER_MILLISECOND: u32 = 1_000_000;

/// A reader of one environment.
pub(crate) struct Reader<'a> {
    environment: &'a Environment,
    faults: Vec<Fault>,
    #[cfg(test)]
    pub(crate) asked: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    /// Starts with the faults that the environment itself has.
    pub(crate) fn new(environment: &'a Environment) -> Self {
        Self {
            environment,
            faults: environment.faults().to_vec(),
            #[cfg(test)]
            asked: Vec::new(),
        }
    }

    /// Whether somebody gave the setting a value.
    pub(crate) fn is_set(&self, name: &str) -> bool {
        self.environment.get(name).is_some()
    }

    /// A setting as it was given.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        self.environment.get(name)
    }

    /// A setting without a default; a bad value is noted and reads as `None`.
    pub(crate) fn optional<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        self.optional_or(name, name, parse)
    }

    /// As [`Self::optional`], under another name where the setting's own is not used.
    pub(crate) fn optional_or<T>(
        &mut self,
        name: &'static str,
        alias: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        #[cfg(test)]
        self.asked.push(name);
        let used = if self.is_set(name) { name } else { alias };
        let text = self.environment.get(used)?;
        let value = parse(text);
        if value.is_none() {
            self.faults.push(Fault::not_allowed(used, table::definition(name), text));
        }
        value
    }

    /// A setting with a default; a bad value is noted and reads as the default.
    ///
    /// # Panics
    /// Where the table's own default is not allowed: a mistake in the program, which any start shows.
    pub(crate) fn required<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Option<T>) -> T {
        self.optional(name, &parse).unwrap_or_else(|| {
            table::definition(name)
                .default
                .and_then(parse)
                .unwrap_or_else(|| panic!("the default of {name} is not an allowed value"))
        })
    }

    /// Notes a fault that concerns more than one setting.
    pub(crate) fn fault(&mut self, name: &str, problem: impl Into<String>) {
        self.faults.push(Fault::new(name, problem));
    }

    /// The settings, if nothing was wrong.
    pub(crate) fn finish<T>(self, settings: T) -> Result<T, Faults> {
        if self.faults.is_empty() { Ok(settings) } else { Err(Faults(self.faults)) }
    }
}

/// A whole number within a range.
pub(crate) fn number<T: FromStr + PartialOrd>(range: RangeInclusive<T>) -> impl Fn(&str) -> Option<T> {
    move |text| text.parse().ok().filter(|number| range.contains(number))
}

/// A duration of whole milliseconds with its unit (`5ms`, `48h`), within a range.
pub(crate) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Option<Duration> {
    let allowed = move |duration: &Duration| {
        range.contains(duration) && duration.subsec_nanos().is_multiple_of(NANOS_PER_MILLISECOND)
    };
    move |text| humantime::parse_duration(text).ok().filter(&allowed)
}

/// A name of an AMQP object: a short string of the protocol.
pub(crate) fn amqp_name(text: &str) -> Option<String> {
    (1..=255).contains(&text.len()).then(|| text.to_owned())
}

/// A URL with a host and one of these schemes. What it holds beside them is the driver's business.
pub(crate) fn server_url(schemes: &[&str]) -> impl Fn(&str) -> Option<SecretString> {
    move |text| {
        let url = Url::parse(text).ok()?;
        let known = schemes.contains(&url.scheme()) && url.host_str().is_some_and(|host| !host.is_empty());
        known.then(|| SecretString::from(text))
    }
}
