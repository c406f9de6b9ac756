//! The claims that the benchmark must show, with their bounds.

use crate::{
    claim::Claim,
    contestant::Contestant,
    results::ServerResults,
    rounds::{Contest, Measurement},
};

/// Bound of the peak resident memory of `keysweep scan`, bytes.
const MAX_RSS: f64 = 15e6;
/// Largest relative distance of the used CPU share from the CPU limit.
const CPU_LIMIT_TOLERANCE: f64 = 0.2;
/// Differences of two added p90 that are noise between rounds, microseconds.
const NOISE: f64 = 15.0;
/// Ratio of two wall times from which on one of them is clearly shorter.
const CLEARLY: f64 = 0.9;

/// Returns all claims about one server.
pub fn claims(results: &ServerResults) -> Vec<Claim> {
    let contests = &results.contests;
    let of = |name: &str| contests.iter().find(|contest| contest.name == name);
    let median = |name: &str, quantity: fn(&Measurement) -> f64| of(name)?.median(quantity);
    let ratio = |ours: &str, theirs: &str, quantity: fn(&Measurement) -> f64| {
        Some(median(ours, quantity)? / median(theirs, quantity)?)
    };
    let own_share = |name: &str| median(name, |run| run.own_cpu / run.server_cpu);
    let micros =
        |name: &str, bound: f64| Claim::at_most(format!("{name}: added p90"), median(name, added), bound).unit("µs");
    // SCAN itself costs twice as much there.
    let bound = if results.server.starts_with("Valkey") { 0.35 } else { 0.65 };
    let cpu = |run: &Measurement| run.server_cpu;
    let mut claims = vec![
        Claim::at_most("normal: wall time by `redis-cli --scan`'s", ratio("normal", "redis-cli", wall), bound),
        Claim::at_most("normal: server CPU per key by `redis-cli --scan`'s", ratio("normal", "redis-cli", cpu), 0.6),
        micros("normal", 80.0),
        Claim::at_most("gentle: wall time by COUNT 100 every 5 ms's", ratio("gentle", "dcs-100", wall), 0.7),
        micros("gentle", 10.0),
        Claim::at_most("fast: wall time by normal's", ratio("fast", "normal", wall), 0.7),
        micros("fast", 150.0),
    ];
    claims.extend(both_axes(contests));
    claims.extend(frontier(contests));
    claims.extend(dominated(&results.grid));
    claims.push(Claim::at_least("max: rate by the bare loop's at the same COUNT", ratio("bare", "max", wall), 0.95));
    claims.push(Claim::at_most("normal: own CPU by the server's", own_share("normal"), 0.25));
    claims.push(Claim::at_most("max: own CPU by the server's", own_share("max"), 0.15));
    claims.push(Claim::at_most("keysweep scan: peak memory", peak_rss(contests), MAX_RSS / 1e6).unit("MB"));
    let used = |set: f64| results.cpu_limits.iter().find(|limit| limit.set == set)?.spread(|round| round.used);
    for set in [0.05, 0.25, 0.5] {
        let text = format!("CPU limit {:.0} %: distance of the server's accounting from it", set * 100.0);
        claims.push(Claim::at_most(text, used(set).map(|used| (used.median / set - 1.0).abs()), CPU_LIMIT_TOLERANCE));
    }
    let backoff = results.backoff.as_ref();
    claims.push(Claim::at_most(
        "backoff: p90 of a saturating foreground with normal by that without",
        backoff.and_then(|backoff| Some(backoff.spread(|round| round.ratio)?.median)),
        1.1,
    ));
    claims.push(Claim::at_most(
        "under pressure: full resyncs, all rounds",
        results.pressure.as_ref().map(|pressure| pressure.rounds.iter().map(|round| round.full_resyncs as f64).sum()),
        0.0,
    ));
    claims
}

fn wall(run: &Measurement) -> f64 {
    run.wall
}

fn added(run: &Measurement) -> f64 {
    run.added_p90
}

/// What decides between two contestants: medians of wall time, seconds, and added p90, microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Point {
    wall: f64,
    added: f64,
}

impl Point {
    fn of(contest: &Contest) -> Option<Self> {
        Some(Self { wall: contest.median(wall)?, added: contest.median(added)? })
    }

    /// Whether this contestant is clearly better on one axis and no worse on the other, where differences of p90 within the
    /// noise between rounds count as none.
    fn beats(self, other: Self) -> bool {
        let is_no_worse = self.wall <= other.wall && self.added <= other.added + NOISE;
        is_no_worse && (self.wall <= CLEARLY * other.wall || self.added < other.added - NOISE)
    }

    /// Whether this contestant is at least as good on both axes without any allowance, and clearly better on one.
    fn dominates(self, other: Self) -> bool {
        let is_no_worse = self.wall <= other.wall && self.added <= other.added;
        is_no_worse && (self.wall <= CLEARLY * other.wall || self.added < other.added - NOISE)
    }
}

fn points(contests: &[Contest], wanted: impl Fn(Contestant) -> bool) -> Vec<(Contestant, Point)> {
    let wanted = contests.iter().filter(|contest| wanted(contest.contestant));
    wanted.filter_map(|contest| Some((contest.contestant, Point::of(contest)?))).collect()
}

/// Compares keysweep with `redis-cli --scan` on both axes, using the gentlest setting that is fast enough.
fn both_axes(contests: &[Contest]) -> [Claim; 2] {
    let rival = points(contests, |contestant| contestant == Contestant::RedisCli).pop();
    let found = rival.and_then(|(_, rival)| {
        let ours = points(contests, Contestant::is_ours).into_iter();
        let compared = ours.map(|(name, our)| (name, our.wall / rival.wall, our.added - rival.added));
        // If no setting is fast enough, the fastest is compared and the claim is missed.
        compared.min_by(|one, other| {
            let slow = |ratio: f64| if ratio <= CLEARLY { 0.0 } else { ratio };
            slow(one.1).total_cmp(&slow(other.1)).then(one.2.total_cmp(&other.2))
        })
    });
    let name = found.map_or("keysweep".to_owned(), |(contestant, ..)| contestant.label());
    [
        Claim::at_most(format!("{name}: wall time by `redis-cli --scan`'s"), found.map(|(_, wall, _)| wall), CLEARLY),
        Claim::at_most(format!("{name}: added p90 above `redis-cli --scan`'s"), found.map(|(.., added)| added), NOISE)
            .unit("µs"),
    ]
}

/// Counts the rivals that a setting of keysweep beats.
fn frontier(contests: &[Contest]) -> Option<Claim> {
    let (ours, rivals) = (points(contests, Contestant::is_ours), points(contests, Contestant::is_rival));
    let beaten = rivals.iter().filter(|(_, rival)| ours.iter().any(|(_, our)| our.beats(*rival)));
    let text = format!(
        "frontier: rivals that a keysweep setting beats on one axis and equals or beats on the other, p90 within {NOISE:.0} µs"
    );
    let (count, all) = (beaten.count() as f64, rivals.len() as f64);
    (!rivals.is_empty() && !ours.is_empty()).then(|| Claim::at_least(text, Some(count), all))
}

/// Counts the presets that another setting of the grid dominates.
fn dominated(grid: &[Contest]) -> Option<Claim> {
    let is_preset = |contestant: Contestant| matches!(contestant, Contestant::Pace(_));
    let (presets, others) =
        (points(grid, is_preset), points(grid, |contestant| matches!(contestant, Contestant::Setting(_))));
    let count = presets.iter().filter(|(_, preset)| others.iter().any(|(_, other)| other.dominates(*preset))).count();
    let text = "grid: presets that another setting beats on both axes";
    (!presets.is_empty()).then(|| Claim::at_most(text, Some(count as f64), 0.0))
}

/// Returns the highest peak memory of keysweep over all rounds, MB.
fn peak_rss(contests: &[Contest]) -> Option<f64> {
    let ours = contests.iter().filter(|contest| contest.contestant.is_ours());
    let peaks = ours.flat_map(|contest| &contest.rounds).filter_map(|run| run.peak_rss);
    peaks.max().map(|bytes| bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(wall: f64, added: f64) -> Point {
        Point { wall, added }
    }

    #[test]
    fn a_rival_is_beaten_by_what_is_clearly_better_on_one_axis_and_no_worse_on_the_other() {
        let rival = point(2.0, 10.0);
        assert!(point(1.0, 24.0).beats(rival), "shorter, and the difference of p90 is noise");
        assert!(point(2.0, -6.0).beats(rival), "as long, and clearly gentler");
        for other in [point(1.0, 26.0), point(2.1, -50.0), point(1.9, 10.0), point(2.0, -4.0)] {
            assert!(!other.beats(rival), "{other:?}");
        }
    }

    #[test]
    fn a_preset_is_dominated_without_allowance() {
        let preset = point(2.0, 70.0);
        assert!(point(1.5, 70.0).dominates(preset) && point(2.0, 50.0).dominates(preset));
        for other in [point(1.5, 71.0), point(2.1, 10.0), point(1.95, 69.0)] {
            assert!(!other.dominates(preset), "{other:?}");
        }
    }
}
