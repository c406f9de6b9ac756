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

/// Returns all claims about one server.
pub fn claims(results: &ServerResults) -> Vec<Claim> {
    let contests = &results.contests;
    let of = |name: &str| contests.iter().find(|contest| contest.name == name);
    let median = |name: &str, quantity: fn(&Measurement) -> f64| of(name)?.median(quantity);
    let ratio = |ours: &str, theirs: &str, quantity: fn(&Measurement) -> f64| {
        Some(median(ours, quantity)? / median(theirs, quantity)?)
    };
    let own_share = |name: &str| median(name, |run| run.own_cpu / run.server_cpu);
    let mut claims = vec![
        Claim::at_most("normal: wall time by `redis-cli --scan`'s", ratio("normal", "redis-cli", wall), 0.5),
        Claim::at_most("normal: wall time by COUNT 1000 every 5 ms's", ratio("normal", "dcs-1000", wall), 1.0),
        Claim::at_most("normal: added p90 by COUNT 1000 every 5 ms's", ratio("normal", "dcs-1000", added), 0.35),
    ];
    claims.extend(both_axes(contests));
    claims.extend(frontier(contests));
    claims.push(Claim::at_most(
        "normal: server CPU per key by `redis-cli --scan`'s",
        ratio("normal", "redis-cli", |run| run.server_cpu),
        0.4,
    ));
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

/// Compares keysweep with `redis-cli --scan` on both axes, using the gentlest setting that is fast enough.
fn both_axes(contests: &[Contest]) -> [Claim; 2] {
    const FASTER: f64 = 0.9;
    let rival = contests.iter().find(|contest| contest.contestant == Contestant::RedisCli);
    let rival = rival.and_then(|rival| Some((rival.median(wall)?, rival.median(added)?)));
    let ours = contests.iter().filter(|contest| contest.contestant.is_ours());
    let ours = ours.filter_map(|contest| Some((contest.contestant, contest.median(wall)?, contest.median(added)?)));
    let found = rival.and_then(|(seconds, micros)| {
        let compared = ours.map(|(contestant, wall, added)| (contestant, wall / seconds, added - micros));
        // If no setting is fast enough, the fastest is compared and the claim is missed.
        compared.min_by(|one, other| {
            let slow = |ratio: f64| if ratio <= FASTER { 0.0 } else { ratio };
            slow(one.1).total_cmp(&slow(other.1)).then(one.2.total_cmp(&other.2))
        })
    });
    let name = found.map_or("keysweep".to_owned(), |(contestant, ..)| contestant.label());
    [
        Claim::at_most(format!("{name}: wall time by `redis-cli --scan`'s"), found.map(|(_, wall, _)| wall), FASTER),
        Claim::at_most(format!("{name}: added p90 above `redis-cli --scan`'s"), found.map(|(.., added)| added), 0.0)
            .unit("µs"),
    ]
}

/// Counts the rivals for which a setting of keysweep is no worse on one axis and at least a tenth better on the other.
fn frontier(contests: &[Contest]) -> Option<Claim> {
    const CLEARLY: f64 = 0.9;
    let point = |contest: &Contest| Some((contest.median(wall)?, contest.median(added)?));
    let points = |wanted: fn(Contestant) -> bool| -> Vec<(f64, f64)> {
        contests.iter().filter(|contest| wanted(contest.contestant)).filter_map(point).collect()
    };
    let (ours, rivals) = (points(Contestant::is_ours), points(Contestant::is_rival));
    let beaten = |rival: &&(f64, f64)| {
        ours.iter().any(|our| {
            let no_worse = our.0 <= rival.0 && our.1 <= rival.1;
            no_worse && (our.0 <= CLEARLY * rival.0 || our.1 <= CLEARLY * rival.1)
        })
    };
    let count = rivals.iter().filter(beaten).count() as f64;
    let all = rivals.len() as f64;
    let text = "frontier: rivals that a keysweep setting beats on one axis and equals or beats on the other";
    (!rivals.is_empty() && !ours.is_empty()).then(|| Claim::at_least(text, Some(count), all))
}

/// Returns the highest peak memory of keysweep over all rounds, MB.
fn peak_rss(contests: &[Contest]) -> Option<f64> {
    let ours = contests.iter().filter(|contest| contest.contestant.is_ours());
    let peaks = ours.flat_map(|contest| &contest.rounds).filter_map(|run| run.peak_rss);
    peaks.max().map(|bytes| bytes as f64 / 1e6)
}
