//! What the last poll of an instance's server returned.

use std::ops::Deref;

use jiff::Timestamp;
use keysweep_engine::{ExpiredKeys, Inspection, ServerProcess, gains_nothing};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Engine of a server that answers, but not as Redis or Valkey do.
const OTHER_ENGINE: &str = "other";
/// Major version of the oldest Redis that can be scanned. DCS refuses older ones, too.
const OLDEST_MAJOR: u32 = 4;

/// The greatest number that every reader of JSON takes as it is: many have no other numbers than those of floating point.
const MAX_IN_JSON: u64 = 1 << 53;

/// Age from which a rate of keys that expire is measured since a poll, milliseconds, and age at which its counters are dropped.
const RATE_TIME: u64 = 60_000;
const MAX_COUNTERS_AGE: u64 = 600_000;
/// Most primaries of an instance whose counters of earlier polls are kept: they are stored with its stats.
const MAX_COUNTED: usize = 64;

/// Returns a number for JSON; `None`: it is absurd, and would be read as another one.
pub fn exact_in_json(number: u64) -> Option<u64> {
    (number <= MAX_IN_JSON).then_some(number)
}

/// Returns a document as JSON, with null for each whole number that would be read as another one.
pub fn exact_document(document: impl Serialize) -> Value {
    fn clear(value: &mut Value) {
        match value {
            Value::Number(number) if number.as_u64().is_some_and(|number| exact_in_json(number).is_none()) => {
                *value = Value::Null;
            }
            Value::Array(items) => items.iter_mut().for_each(clear),
            Value::Object(fields) => fields.values_mut().for_each(clear),
            _ => {}
        }
    }
    // A document of this crate is always JSON.
    let mut value = serde_json::to_value(document).unwrap_or_default();
    clear(&mut value);
    value
}

/// The statistics of an instance, as its servers reported them to the last poll. Stored as versioned JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceStats {
    /// What the servers reported.
    #[serde(flatten)]
    pub server: Inspection,
    /// When they did.
    pub seen_at: Timestamp,
}

impl Deref for InstanceStats {
    type Target = Inspection;

    fn deref(&self) -> &Inspection {
        &self.server
    }
}

impl InstanceStats {
    /// Returns what is stored of a server that is neither Redis nor Valkey.
    pub fn of_other_engine(seen_at: Timestamp) -> Self {
        let server = Inspection { engine: OTHER_ENGINE.to_owned(), ..Inspection::default() };
        Self { server, seen_at }
    }

    /// Returns the name of the topology: standalone or cluster.
    pub fn mode(&self) -> &'static str {
        if self.cluster { "cluster" } else { "standalone" }
    }

    /// Returns the same with counters of the polls before, of which one is a minute old or more before long: the last poll may be
    /// of a moment ago. Of each primary, those of two polls at most are kept.
    pub fn with_counters_of(mut self, before: &Self) -> Self {
        if self.primaries.len() > MAX_COUNTED {
            return self;
        }
        for latest in self.server.expired.clone() {
            let age = |counted: &&ExpiredKeys| latest.at.saturating_sub(counted.at);
            let of_primary = || before.expired.iter().filter(|counted| counted.run_id == latest.run_id);
            let old = of_primary().filter(|counted| (RATE_TIME..=MAX_COUNTERS_AGE).contains(&age(counted)));
            let young = of_primary().filter(|counted| age(counted) < RATE_TIME);
            let kept = [old.min_by_key(age), young.max_by_key(age)];
            self.server.expired.extend(kept.into_iter().flatten().cloned());
        }
        self
    }

    /// Returns the addresses by which the time between samples of the primaries is kept.
    pub fn sampled_addresses(&self) -> Vec<String> {
        // Where not every one is known, the order does not say whose they are.
        let ips = Some(&self.ips).filter(|ips| ips.len() == self.primaries.len());
        let address = |(index, address)| {
            let ip = ips.and_then(|ips| ips.get(index).copied());
            ServerProcess::at(ip, address, String::new()).address
        };
        self.primaries.iter().enumerate().map(address).collect()
    }

    /// Returns why a server like this cannot be scanned, a sentence; `None`: it can. One that reports no version is taken for
    /// a recent one.
    pub fn unsupported(&self) -> Option<String> {
        let Inspection { engine, engine_version, .. } = &self.server;
        if let Some(cause) = gains_nothing(engine) {
            return Some(cause.to_owned());
        }
        if engine == OTHER_ENGINE {
            return Some("the server is neither Redis nor Valkey".to_owned());
        }
        let major = engine_version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        let is_too_old = major.is_some_and(|major| major < OLDEST_MAJOR);
        is_too_old.then(|| {
            format!("{engine} {engine_version} is not supported; {OLDEST_MAJOR}.0 is the oldest supported version")
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::the_last_that_is_too_old("redis", "3.2.13", false)]
    #[case::the_oldest("redis", "4.0.0", true)]
    #[case::with_two_digits("redis", "10.0.0", true)]
    #[case::no_version("redis", "", true)]
    #[case::a_name_for_a_version("valkey", "unstable", true)]
    #[case::no_redis("other", "", false)]
    #[case::dragonfly("dragonfly", "df-v1.40.1", false)]
    #[case::kvrocks("kvrocks", "2.17.0", false)]
    #[case::garnet("garnet", "1.1.9", false)]
    fn redis_4_and_unknown_versions_are_supported(#[case] engine: &str, #[case] version: &str, #[case] is: bool) {
        let server = Inspection { engine: engine.into(), engine_version: version.into(), ..Inspection::default() };
        assert_eq!(InstanceStats { server, seen_at: Timestamp::UNIX_EPOCH }.unsupported().is_none(), is);
    }

    #[test]
    fn counters_of_a_minute_ago_are_there_however_often_an_instance_is_polled() {
        let poll = |second: u64| {
            let counted = ExpiredKeys { at: second * 1_000, run_id: "one".into(), keys: second, fields: 0 };
            let server = Inspection { expired: vec![counted], ..Inspection::default() };
            InstanceStats { server, seen_at: Timestamp::UNIX_EPOCH }
        };
        for interval in [1, 7, 60, 90] {
            let mut stats = poll(0);
            for second in (interval..1_000).step_by(interval as usize) {
                stats = poll(second).with_counters_of(&stats);
                assert!(stats.expired.len() <= 3, "{stats:?}");
                let since =
                    stats.expired.iter().map(|counted| second - counted.at / 1_000).filter(|age| *age >= 60).min();
                assert!(second < 120 || since.is_some_and(|age| age < 120 + interval), "{interval}: {stats:?}");
            }
        }
        let later = poll(2_000).with_counters_of(&poll(0));
        assert_eq!(later.expired.len(), 1, "too old");
    }

    #[test]
    fn samples_of_a_primary_are_kept_by_the_address_that_it_was_connected_to_at() {
        let addresses = |ips: &[&str]| {
            let primary = |address: &str| address.parse().expect("an address");
            let server = Inspection {
                primaries: vec![primary("cache.example:6379"), primary("cache.example:6380")],
                ips: ips.iter().map(|ip| ip.parse().expect("an IP address")).collect(),
                ..Inspection::default()
            };
            InstanceStats { server, seen_at: Timestamp::UNIX_EPOCH }.sampled_addresses().join(" ")
        };
        assert_eq!(addresses(&["10.0.0.7", "::1"]), "10.0.0.7:6379 127.0.0.1:6380");
        assert_eq!(addresses(&["10.0.0.7"]), "cache.example:6379 cache.example:6380");
    }

    #[test]
    fn a_number_that_json_cannot_carry_is_unknown() {
        assert_eq!(exact_in_json(1 << 53), Some(1 << 53));
        assert_eq!((exact_in_json((1 << 53) + 1), exact_in_json(u64::MAX)), (None, None));
        let document = serde_json::json!({ "keys": u64::MAX, "shards": [{ "keys": 7, "share": 1e300 }, u64::MAX, -1] });
        let exact = serde_json::json!({ "keys": null, "shards": [{ "keys": 7, "share": 1e300 }, null, -1] });
        assert_eq!(exact_document(document), exact);
    }

    #[test]
    fn stats_of_0_1_0_are_readable() {
        let stored = r#"{"engine":"valkey","engine_version":"9.1.2","mode":"cluster","keys":8,"keys_with_ttl":5,
            "dead_keys":3,"used_memory":1,"max_memory":0,"hosts":["cache.example"],"primaries":["cache.example:6379"],
            "seen_at":"2026-11-01T00:00:00Z"}"#;
        let stats: InstanceStats = serde_json::from_str(stored).expect("readable");
        assert_eq!((stats.mode(), stats.keys, stats.stale_keys), ("cluster", 8, Some(3)));
        assert!(stats.ips.is_empty());
        let again: InstanceStats =
            serde_json::from_str(&serde_json::to_string(&stats).expect("writable")).expect("readable");
        assert_eq!(again, stats);
        let oldest = stored.replace("\"mode\":\"cluster\"", "\"mode\":\"standalone\"").replace("\"dead_keys\":3,", "");
        let stats: InstanceStats = serde_json::from_str(&oldest).expect("readable");
        assert_eq!((stats.mode(), stats.stale_keys), ("standalone", None));
    }
}
