//! The keys of a primary that expire, by database, and what a setting of the cycle holds of them.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{
    cost::CycleCost,
    law::{CycleSetting, MIN_LAW_KEYS},
};

/// Part of the keys with a TTL above which one database decides the share of all.
const MAIN_PART: f64 = 0.9;
/// Databases that the cycle visits in one round.
const DATABASES_PER_CYCLE: u32 = 16;

/// Keys of one database that expire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct DatabaseLoad {
    /// All keys, stale keys included.
    pub keys: u64,
    /// Keys with a TTL.
    pub with_ttl: u64,
    /// Keys that expire a second.
    pub rate: f64,
}

/// Keys of a primary that expire.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Workload {
    /// Databases that hold keys.
    pub databases: Vec<DatabaseLoad>,
    /// Databases that the server is configured with: the cycle visits 16 of them at a time.
    pub configured_databases: u32,
}

impl Workload {
    /// Splits the keys that expire a second on a whole primary over its databases: by their number over their mean TTL, and by
    /// the number alone where the server does not report the mean TTL of one. `databases`: keys, keys with a TTL and mean TTL
    /// of each.
    pub fn split(rate: f64, databases: &[(u64, u64, Option<Duration>)], configured_databases: u32) -> Self {
        let has_ttl = databases.iter().all(|(_, with_ttl, ttl)| *with_ttl == 0 || ttl.is_some());
        let weight = |(_, with_ttl, ttl): &(u64, u64, Option<Duration>)| match ttl.filter(|_| has_ttl) {
            Some(ttl) => *with_ttl as f64 / ttl.as_secs_f64().max(1e-3),
            None => *with_ttl as f64,
        };
        let sum: f64 = databases.iter().map(weight).sum();
        let load = |database: &(u64, u64, Option<Duration>)| DatabaseLoad {
            keys: database.0,
            with_ttl: database.1,
            rate: if sum > 0.0 { rate * weight(database) / sum } else { 0.0 },
        };
        Self { databases: databases.iter().map(load).collect(), configured_databases }
    }

    /// Returns all keys.
    pub fn keys(&self) -> u64 {
        self.databases.iter().map(|database| database.keys).fold(0, u64::saturating_add)
    }

    /// Returns the keys with a TTL.
    pub fn with_ttl(&self) -> u64 {
        self.databases.iter().map(|database| database.with_ttl).fold(0, u64::saturating_add)
    }

    /// Returns the keys that expire a second.
    pub fn rate(&self) -> f64 {
        self.databases.iter().map(|database| database.rate).sum()
    }

    /// Whether the law holds: no database is too small for it, among those in which keys expire.
    pub fn follows_the_law(&self) -> bool {
        self.databases.iter().all(|database| database.rate <= 0.0 || database.with_ttl >= MIN_LAW_KEYS)
    }

    /// Whether one database has nearly all keys with a TTL. Otherwise the share depends on how the keys that expire are split over
    /// several, which is an estimate: the servers count them in one sum.
    pub fn has_main_database(&self) -> bool {
        let largest = self.databases.iter().map(|database| database.with_ttl).max().unwrap_or(0);
        largest as f64 >= MAIN_PART * self.with_ttl() as f64
    }

    /// Returns the share of all keys that is stale in steady state with a setting.
    pub fn held_share(&self, setting: CycleSetting) -> f64 {
        let stale: f64 =
            self.databases.iter().map(|database| self.held(database, setting) * database.with_ttl as f64).sum();
        if self.keys() == 0 { 0.0 } else { stale / self.keys() as f64 }
    }

    /// Returns the share of the keys with a TTL of one database that is stale in steady state.
    pub fn held(&self, database: &DatabaseLoad, setting: CycleSetting) -> f64 {
        let rounds = self.configured_databases.max(1).div_ceil(DATABASES_PER_CYCLE);
        setting.held_share(database.rate * f64::from(rounds))
    }

    /// Returns the seconds a second that the cycle takes in steady state with a setting.
    pub fn cycle_load(&self, setting: CycleSetting, cost: CycleCost) -> f64 {
        self.databases.iter().map(|database| cost.load(database.rate, self.held(database, setting))).sum()
    }

    /// Returns the seconds for which one cycle stalls clients in steady state with a setting.
    pub fn stall(&self, setting: CycleSetting, cost: CycleCost) -> f64 {
        self.cycle_load(setting, cost) / f64::from(setting.hz.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_split_by_keys_and_their_ttls() {
        let rates = |databases: &[(u64, u64, u64)]| -> Vec<f64> {
            let ttl = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis));
            let databases: Vec<_> = databases.iter().map(|one| (one.0, one.1, ttl(one.2))).collect();
            Workload::split(90.0, &databases, 16).databases.iter().map(|database| database.rate.round()).collect()
        };
        assert_eq!(rates(&[(500, 100, 1_000), (500, 100, 2_000)]), [60.0, 30.0]);
        assert_eq!(rates(&[(500, 100, 0), (500, 200, 2_000)]), [30.0, 60.0], "one average TTL is unknown");
        assert_eq!(rates(&[(500, 0, 0), (500, 200, 2_000)]), [0.0, 90.0]);
        assert_eq!(rates(&[(500, 0, 0)]), [0.0]);
        assert_eq!(rates(&[]), [0.0; 0]);
    }

    #[test]
    fn the_share_of_all_keys_is_smaller_where_some_have_no_ttl() {
        let setting = CycleSetting::default();
        let held = |keys| Workload::split(1_000.0, &[(keys, 50_000, None)], 16).held_share(setting);
        assert!((held(50_000) - 0.155).abs() < 0.01);
        assert!((held(100_000) * 2.0 - held(50_000)).abs() < 1e-9);
        assert_eq!(Workload::default().held_share(setting), 0.0);
    }

    #[test]
    fn more_than_sixteen_databases_take_turns() {
        let held = |configured| {
            Workload::split(100.0, &[(50_000, 50_000, None)], configured).held_share(CycleSetting::default())
        };
        assert_eq!(held(1), held(16));
        assert_eq!(held(17), CycleSetting::default().held_share(200.0));
    }

    #[test]
    fn a_small_database_has_no_law_unless_nothing_expires_in_it() {
        let workload = |small| Workload::split(10.0, &[(50_000, 50_000, None), (2_000, small, None)], 16);
        assert!(workload(0).follows_the_law() && !workload(2_000).follows_the_law());
    }

    #[test]
    fn one_database_is_the_main_one_if_it_has_nearly_all_keys_with_a_ttl() {
        let has_main = |sizes: &[u64]| {
            let databases: Vec<_> = sizes.iter().map(|with_ttl| (*with_ttl, *with_ttl, None)).collect();
            Workload::split(10.0, &databases, 16).has_main_database()
        };
        assert!(has_main(&[]) && has_main(&[5_000]) && has_main(&[95_000, 5_000]));
        assert!(!has_main(&[50_000, 50_000]) && !has_main(&[80_000, 20_000]));
    }

    #[test]
    fn the_cycles_of_all_databases_add_up_to_one_stall() {
        let (setting, cost) = (CycleSetting { effort: 10, hz: 10 }, CycleCost::default());
        let one = Workload::split(10_000.0, &[(100_000, 100_000, None)], 16);
        assert!((one.stall(setting, cost) - 0.0028).abs() < 0.0004);
        let two = Workload { databases: vec![one.databases[0]; 2], ..one.clone() };
        assert!((two.stall(setting, cost) / one.stall(setting, cost) - 2.0).abs() < 1e-9);
    }
}
