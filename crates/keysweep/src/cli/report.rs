//! The report of a scan on the terminal.

use indicatif::HumanCount;
use keysweep_engine::{FailureKind, Outcome, Remaining, Report, ShardReport, Throttled, Totals};

use super::term::{is_verbose, line, pairs, paragraph, table};
use crate::units::size;

/// Bytes freed from which the report explains resident memory that stays.
const WORTH_EXPLAINING: u64 = 1 << 20;
/// Stale share after a scan from which the report mentions it, 0–1.
const WORTH_REPORTING: f64 = 0.005;

/// Returns what a scan did, in one sentence.
fn sentence(report: &Report) -> String {
    let totals = &report.totals;
    let reclaimed = match (totals.keys_reclaimed, totals.exact) {
        (1, true) => "1 expired key".to_owned(),
        (keys, true) => format!("{} expired keys", HumanCount(keys)),
        (keys, false) => format!("at least {} expired keys", HumanCount(keys)),
    };
    let memory = match (totals.used_memory_before, totals.used_memory_after) {
        (Some(before), Some(after)) => format!(", {} → {}", size(before), size(after)),
        _ => String::new(),
    };
    let latency = match (totals.probe_seconds.baseline_p90, totals.probe_seconds.during_p90) {
        (Some(before), Some(during)) => format!("; clients' p90 {}", rise(during - before)),
        _ => String::new(),
    };
    let left = totals.remaining.map(|left| format!("; {:.1} % stale left", left.share * 100.0)).unwrap_or_default();
    let begin = match report.outcome {
        Outcome::Done => "Reclaimed",
        Outcome::Failed => "Stopped after reclaiming",
    };
    format!("{begin} {reclaimed}{memory}, in {:.1} s{latency}{left}.", totals.elapsed_seconds)
}

/// Formats by how many seconds a latency has risen. A server that works answers a little sooner than one that has to be woken up.
fn rise(seconds: f64) -> String {
    match seconds * 1e3 {
        milliseconds if milliseconds < 0.005 => "no higher".to_owned(),
        milliseconds => format!("+{milliseconds:.2} ms"),
    }
}

/// Describes how a scan ended. What the user asked for is no failure of the server.
fn outcome(report: &Report) -> String {
    match (report.outcome, report.reason) {
        (Outcome::Done, _) => "done".to_owned(),
        (Outcome::Failed, Some(FailureKind::Timeout)) => "stopped by the timeout".to_owned(),
        (Outcome::Failed, Some(FailureKind::Interrupted)) => "interrupted".to_owned(),
        (Outcome::Failed, reason) => format!("failed ({})", reason.map_or("", |reason| reason.as_str())),
    }
}

/// Describes what made a scan slower: halved CPU shares, and seconds of waiting by reason.
fn slowed(totals: &Totals) -> Option<String> {
    let Throttled { replica_lag, replica_missing, fork, paused } = totals.throttled;
    let backoffs = (totals.backoffs > 0).then(|| match totals.backoffs {
        1 => "1 backoff".to_owned(),
        backoffs => format!("{} backoffs", HumanCount(backoffs)),
    });
    let waits = [
        (fork, "for background saves"),
        (replica_lag, "for replicas that lag"),
        (replica_missing, "for missing replicas"),
        (paused, "while expiry was paused"),
    ];
    let waits = waits.into_iter().filter(|(seconds, _)| *seconds >= 0.05);
    let waits = waits.map(|(seconds, why)| format!("waited {seconds:.1} s {why}"));
    let all: Vec<String> = backoffs.into_iter().chain(waits).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// Describes the stale keys that are left, and why they are.
fn stale_now(left: &Remaining) -> String {
    let rate = left.expired_per_second.map(|rate| format!("at about {} a second", HumanCount(rate as u64)));
    let cause = match (left.in_doubt, rate) {
        (false, None) => "which expired during the scan".to_owned(),
        (false, Some(rate)) => format!("which expired during the scan, {rate}"),
        (true, None) => "some of which the scan may have left out".to_owned(),
        (true, Some(rate)) => format!("some of which the scan may have left out; keys expired {rate}"),
    };
    format!("about {} keys ({:.1} %), {cause}", HumanCount(left.stale_keys), left.share * 100.0)
}

/// Describes the resident memory. An allocator that keeps what was freed looks like a scan without effect.
fn resident(totals: &Totals) -> String {
    let change = change(totals.rss_before, totals.rss_after);
    let (Some(before), Some(after)) = (totals.rss_before, totals.rss_after) else { return change };
    let freed = totals.used_memory_before.zip(totals.used_memory_after).map_or(0, |(was, is)| was.saturating_sub(is));
    match freed >= WORTH_EXPLAINING && before.saturating_sub(after) < freed / 2 {
        true => format!("{change}; the allocator keeps the freed memory for new keys"),
        false => change,
    }
}

/// Prints the report of a scan: what it did in one sentence, what that cost, then the details.
pub fn print(report: &Report) {
    let totals = &report.totals;
    paragraph(&sentence(report), line);
    line("");
    let server = report.shards.iter().find_map(|shard| shard.server.clone()).unwrap_or_default();
    let mut rows = Vec::new();
    let mut row = |name, value: String| rows.push((name, value));
    row("target", format!("{}  {server}", report.target));
    row("outcome", outcome(report));
    let slices = &totals.slice_seconds;
    let micros = |seconds: f64| format!("{:.0} µs", seconds * 1e6);
    row(
        "slices",
        format!(
            "longest {}, p99 {}, median {}; {} at pace {}",
            micros(slices.max),
            micros(slices.p99),
            micros(slices.p50),
            HumanCount(totals.slices),
            report.pace
        ),
    );
    let whose = if report.shards.len() > 1 { "the busiest primary's" } else { "the" };
    let share = totals.cpu_share * 100.0;
    row("server time", format!("{:.2} s, {share:.1} % of {whose} main thread", totals.server_seconds));
    if let (Some(before), Some(during)) = (totals.probe_seconds.baseline_p90, totals.probe_seconds.during_p90)
        && is_verbose()
    {
        row("latency probe", format!("p90 {} before, {} during the scan", micros(before), micros(during)));
    }
    row("slowed down", slowed(totals).unwrap_or_else(|| "never".to_owned()));
    let repeated = match totals.keys_repeated {
        0 => String::new(),
        keys => format!("  (about {} of them twice)", HumanCount(keys)),
    };
    row("keys scanned", format!("{}{repeated}", HumanCount(totals.keys_scanned)));
    let exactness = if totals.exact { "exact" } else { "lower bound" };
    row("keys reclaimed", format!("{}  ({exactness})", HumanCount(totals.keys_reclaimed)));
    if let Some(left) = totals.remaining.filter(|left| left.share >= WORTH_REPORTING) {
        row("stale now", stale_now(&left));
    }
    row("used memory", change(totals.used_memory_before, totals.used_memory_after));
    row("resident memory", resident(totals));
    row("elapsed", format!("{:.1} s", totals.elapsed_seconds));
    pairs(rows);
    if report.shards.len() > 1 {
        line("");
        primaries(&report.shards);
    }
}

/// Prints one line per primary.
fn primaries(shards: &[ShardReport]) {
    let row = |shard: &ShardReport| {
        let outcome = match (shard.outcome, &shard.message) {
            (Outcome::Done, _) => "done".to_owned(),
            (Outcome::Failed, message) => format!("failed: {}", message.as_deref().unwrap_or_default()),
        };
        vec![
            shard.address.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string),
            HumanCount(shard.totals.keys_scanned).to_string(),
            HumanCount(shard.totals.keys_reclaimed).to_string(),
            change(shard.totals.used_memory_before, shard.totals.used_memory_after),
            format!("{:.1} %", shard.totals.cpu_share * 100.0),
            outcome,
        ]
    };
    let header = ["primary", "keys scanned", "keys reclaimed", "used memory", "main thread", "outcome"];
    table(&header, shards.iter().map(row).collect());
}

/// Formats a size before and after, with the difference.
fn change(before: Option<u64>, after: Option<u64>) -> String {
    match (before, after) {
        (Some(before), Some(after)) if before == after => format!("{}, unchanged", size(before)),
        (Some(before), Some(after)) => {
            let (sign, difference) = if after <= before { ("-", before - after) } else { ("+", after - before) };
            format!("{} → {}  ({sign}{})", size(before), size(after), size(difference))
        }
        (Some(before), None) => format!("{} before", size(before)),
        _ => "unknown".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_slowed_a_scan_down_is_named_with_its_seconds() {
        assert_eq!(slowed(&Totals::default()), None);
        let throttled = Throttled { fork: 2.0, replica_lag: 0.3, paused: 0.01, ..Throttled::default() };
        let totals = Totals { backoffs: 3, throttled, ..Totals::default() };
        let text = "3 backoffs, waited 2.0 s for background saves, waited 0.3 s for replicas that lag";
        assert_eq!(slowed(&totals).as_deref(), Some(text));
    }

    #[test]
    fn a_latency_that_has_not_risen_is_no_higher() {
        assert_eq!(
            [0.000_063, 0.000_004, 0.0, -0.000_03].map(rise),
            ["+0.06 ms", "no higher", "no higher", "no higher"]
        );
    }

    #[test]
    fn stale_keys_have_expired_during_the_scan_only_where_that_is_no_doubt() {
        let left = |in_doubt, expired_per_second| {
            stale_now(&Remaining { keys: 10_000, stale_keys: 1_234, share: 0.1234, in_doubt, expired_per_second })
        };
        let about = "about 1,234 keys (12.3 %),";
        assert_eq!(left(false, None), format!("{about} which expired during the scan"));
        assert_eq!(left(false, Some(70.2)), format!("{about} which expired during the scan, at about 70 a second"));
        assert_eq!(left(true, None), format!("{about} some of which the scan may have left out"));
        let doubt = "some of which the scan may have left out; keys expired at about 70 a second";
        assert_eq!(left(true, Some(70.2)), format!("{about} {doubt}"));
    }

    #[test]
    fn resident_memory_that_stays_is_explained_and_other_changes_are_not() {
        let sizes = |rss_after: u64, used_after: u64| Totals {
            used_memory_before: Some(250 << 20),
            used_memory_after: Some(used_after << 20),
            rss_before: Some(300 << 20),
            rss_after: Some(rss_after << 20),
            ..Totals::default()
        };
        assert!(resident(&sizes(299, 200)).ends_with("the allocator keeps the freed memory for new keys"));
        assert!(!resident(&sizes(260, 200)).contains("allocator"));
        assert!(!resident(&sizes(300, 250)).contains("allocator"), "nothing was freed");
        assert_eq!(resident(&Totals::default()), "unknown");
    }
}
