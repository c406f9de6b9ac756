//! The last 30 days of an instance: stale share, used memory, scans and changes of settings. The rows of a table, from which the
//! script of the page draws; without script the table is what is shown.

use std::collections::BTreeMap;

use jiff::{Timestamp, ToSpan};
use keysweep_engine::{
    HoldLevel, HoldPolicy,
    stale::{CycleSetting, Share},
};
use serde_json::Value;

use super::{
    estimate::share_text,
    format::{self, percent},
};
use crate::{
    model::{AutoScan, EstimatePoint, Mark, MarkKind},
    units,
};

/// Hours that the page shows.
pub(super) const HOURS: i64 = 30 * 24;
/// Hours in which events are grouped by the hour, as the estimates are; before, they are grouped by the day.
const HOURLY: i64 = 7 * 24;
const HOUR_SECONDS: i64 = 3_600;
/// Part of the target below which hold lowers the effort.
const FLOOR: f64 = 0.5;

/// What the page shows of the last 30 days.
pub(super) struct Trend {
    /// Seconds since 1970, as all times for the script.
    pub(super) from: i64,
    pub(super) to: i64,
    /// Newest first.
    pub(super) rows: Vec<TrendRow>,
    pub(super) target: Option<Target>,
    /// Whether any share is a hint or a prediction.
    pub(super) has_hints: bool,
}

/// The share that an instance is to stay below, 0–1.
#[derive(Debug, PartialEq)]
pub(super) struct Target {
    pub(super) below: f64,
    /// The lower end of the range in which hold leaves the settings as they are; `None`: the target of an auto-scan.
    pub(super) floor: Option<f64>,
    /// What the lines mean, a sentence.
    pub(super) sentence: String,
}

/// An estimate, or scans or changes of settings within an hour or a day. Texts are empty where a row says nothing.
#[derive(Debug, Default, PartialEq)]
pub(super) struct TrendRow {
    pub(super) at: i64,
    pub(super) utc: String,
    pub(super) iso: String,
    pub(super) share: String,
    pub(super) bytes: String,
    pub(super) memory: String,
    pub(super) event: String,
    /// What the script draws: names and values of `data-` attributes.
    pub(super) plotted: Vec<(&'static str, String)>,
}

impl Trend {
    pub(super) fn new(
        points: &[EstimatePoint],
        marks: &[Mark],
        policy: &HoldPolicy,
        auto_scan: &AutoScan,
        now: Timestamp,
    ) -> Self {
        let mut rows: Vec<TrendRow> = points.iter().map(estimate).chain(events(marks, now)).collect();
        // Events of the second of an estimate stand above it.
        rows.sort_by_key(|row| std::cmp::Reverse(row.at));
        Self {
            from: (now - HOURS.hours()).as_second(),
            to: now.as_second(),
            has_hints: points.iter().any(|point| point.primaries.iter().any(|primary| primary.approximate)),
            target: Target::new(policy, auto_scan),
            rows,
        }
    }
}

impl Target {
    fn new(policy: &HoldPolicy, auto_scan: &AutoScan) -> Option<Self> {
        let below = policy.below;
        match (policy.level, auto_scan.target.filter(|_| auto_scan.enabled)) {
            (HoldLevel::Hold, _) => Some(Self {
                below,
                floor: Some(below * FLOOR),
                sentence: format!(
                    "The dashed line is the target, {}. Between {} and the target, hold leaves the settings as they are.",
                    percent(below),
                    percent(below * FLOOR)
                ),
            }),
            (HoldLevel::Advise, _) => {
                let sentence = format!("The dashed line is the target, {}.", percent(below));
                Some(Self { below, floor: None, sentence })
            }
            (HoldLevel::Observe, Some(target)) => {
                let sentence =
                    format!("The dashed line is the mean that automatic scans keep, {}.", percent(target.share()));
                Some(Self { below: target.share(), floor: None, sentence })
            }
            (HoldLevel::Observe, None) => None,
        }
    }
}

fn row(at: Timestamp) -> TrendRow {
    TrendRow {
        at: at.as_second(),
        utc: at.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        iso: at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        ..TrendRow::default()
    }
}

/// Returns the sum of what is known of every primary; `None`: something is not.
fn sum(parts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    parts.reduce(|sum, part| Some(sum?.saturating_add(part?))).flatten()
}

/// Returns the row of an estimate: all primaries together, as far as their shares are known.
fn estimate(point: &EstimatePoint) -> TrendRow {
    let known: Vec<_> = point.primaries.iter().filter_map(|primary| Some((primary, primary.share?))).collect();
    let is_hint = known.iter().any(|(primary, _)| primary.approximate);
    let is_certain = known.iter().all(|(primary, _)| primary.share_low.is_some() && primary.share_high.is_some());
    let shares: Vec<(Share, f64)> = known
        .iter()
        .map(|(primary, share)| {
            let (low, high) = (primary.share_low.unwrap_or(*share), primary.share_high.unwrap_or(*share));
            (Share { share: *share, low, high }, primary.keys as f64)
        })
        .collect();
    let found = (!shares.is_empty()).then(|| Share::combined(&shares));
    let interval = found.filter(|_| is_certain && !is_hint);
    let (low, high) = (interval.map(|share| share.low), interval.map(|share| share.high));
    let memory = sum(point.primaries.iter().map(|primary| primary.used_memory));
    let bytes = sum(known.iter().map(|(primary, _)| primary.bytes));
    let plotted = [
        (if is_hint { "hint" } else { "share" }, found.map(|share| share.share.to_string())),
        ("low", low.map(|low| low.to_string())),
        ("high", high.map(|high| high.to_string())),
        ("memory", memory.map(|bytes| bytes.to_string())),
    ];
    TrendRow {
        share: found.map_or_else(String::new, |share| share_text(Some(share.share), low, high, is_hint)),
        bytes: bytes.map_or_else(String::new, units::size),
        memory: memory.map_or_else(String::new, units::size),
        plotted: plotted.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        ..row(point.taken_at)
    }
}

/// Returns a row for all scans of an hour, and one for all changes of settings; of a day, where it is more than a week ago.
/// So a page is bounded for an instance that is scanned every minute.
fn events(marks: &[Mark], now: Timestamp) -> impl Iterator<Item = TrendRow> {
    let recent = now.as_second() - HOURLY * HOUR_SECONDS;
    let mut groups: BTreeMap<(i64, &str), Vec<&Mark>> = BTreeMap::new();
    for mark in marks {
        let at = mark.happened_at.as_second();
        let span = if at < recent { 24 * HOUR_SECONDS } else { HOUR_SECONDS };
        groups.entry((at.div_euclid(span) * span, mark.kind.as_str())).or_default().push(mark);
    }
    groups.into_values().filter_map(|group| {
        let last = group.last()?;
        let (event, plotted) = match last.kind {
            MarkKind::Scan => {
                let reclaimed = group.iter().filter_map(|mark| mark.detail["keys_reclaimed"].as_u64());
                let reclaimed = reclaimed.fold(0, u64::saturating_add);
                let keys = format!("{} keys reclaimed", format::count(reclaimed));
                let event = match group.as_slice() {
                    [one] if one.detail["status"] == "failed" => format!("failed scan, {keys}"),
                    [_] => format!("scan, {keys}"),
                    many => format!("{} scans, {keys}", format::count(many.len() as u64)),
                };
                (event, vec![("event", "scan".to_owned()), ("reclaimed", reclaimed.to_string())])
            }
            MarkKind::Config => {
                let change = change(&last.detail);
                let event = match group.len() {
                    1 => change,
                    many => format!("{many} changes of settings, the last: {change}"),
                };
                (event, vec![("event", "config".to_owned())])
            }
        };
        Some(TrendRow { event, plotted, ..row(last.happened_at) })
    })
}

/// Returns what a change of settings has changed, and why.
fn change(detail: &Value) -> String {
    let setting = |name: &str| serde_json::from_value::<CycleSetting>(detail[name].clone()).ok();
    let (Some(from), Some(to)) = (setting("from"), setting("to")) else { return "change of settings".to_owned() };
    let effort = (from.effort != to.effort).then(|| format!("effort {} → {}", from.effort, to.effort));
    let hz = (from.hz != to.hz).then(|| format!("hz {} → {}", from.hz, to.hz));
    let changes = [effort, hz].into_iter().flatten().collect::<Vec<_>>().join(", ");
    match detail["reason"].as_str() {
        Some(reason) => format!("{changes}: {reason}"),
        None => changes,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{PrimaryPoint, TargetShare};

    const NOW: i64 = 1_900_000_800;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn primary(keys: u64, share: Option<(f64, f64, f64)>, used_memory: Option<u64>) -> PrimaryPoint {
        PrimaryPoint {
            address: "h:1".into(),
            keys,
            share: share.map(|(share, ..)| share),
            share_low: share.map(|(_, low, _)| low),
            share_high: share.map(|(.., high)| high),
            approximate: false,
            bytes: Some(1 << 20),
            expiry_rate: None,
            used_memory,
        }
    }

    fn estimated(primaries: Vec<PrimaryPoint>) -> TrendRow {
        estimate(&EstimatePoint { taken_at: at(NOW), primaries })
    }

    fn plotted<'r>(row: &'r TrendRow, name: &str) -> Option<&'r str> {
        row.plotted.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
    }

    fn scan(second: i64, reclaimed: u64, status: &str) -> Mark {
        let detail = json!({ "task_id": "t", "status": status, "keys_reclaimed": reclaimed });
        Mark { happened_at: at(second), kind: MarkKind::Scan, detail }
    }

    fn texts(marks: &[Mark]) -> Vec<String> {
        events(marks, at(NOW)).map(|row| row.event).collect()
    }

    #[test]
    fn primaries_count_by_their_keys_and_an_unknown_part_is_left_out() {
        let row = estimated(vec![
            primary(3_000, Some((0.2, 0.1, 0.3)), Some(1 << 30)),
            primary(1_000, Some((0.4, 0.4, 0.4)), Some(1 << 30)),
            primary(9_000, None, Some(1 << 30)),
        ]);
        assert_eq!(plotted(&row, "share"), Some("0.25"));
        assert_eq!((row.share.as_str(), row.bytes.as_str()), ("25.0\u{a0}±7.5\u{a0}%", "2.0 MiB"));
        assert_eq!((row.memory.as_str(), plotted(&row, "memory")), ("3.0 GiB", Some("3221225472")));
        let row = estimated(vec![primary(1, None, None), primary(1, None, Some(7))]);
        assert_eq!((row.share.as_str(), row.memory.as_str(), row.plotted.len()), ("", "", 0));
    }

    #[test]
    fn a_hint_is_marked_and_has_no_interval() {
        let hint = PrimaryPoint { approximate: true, ..primary(1_000, Some((0.2, 0.1, 0.3)), None) };
        let row = estimated(vec![hint]);
        assert_eq!((row.share.as_str(), plotted(&row, "hint")), ("≈\u{a0}20.0\u{a0}%", Some("0.2")));
        assert_eq!((plotted(&row, "share"), plotted(&row, "low")), (None, None));
    }

    #[test]
    fn scans_of_an_hour_are_one_event_and_those_of_a_day_after_a_week() {
        let hour = NOW - NOW % HOUR_SECONDS;
        let recent =
            [scan(hour, 1_000, "success"), scan(hour + 60, 500, "failed"), scan(hour + HOUR_SECONDS, 7, "failed")];
        assert_eq!(texts(&recent), ["2 scans, 1,500 keys reclaimed", "failed scan, 7 keys reclaimed"]);
        let day = hour - hour % (24 * HOUR_SECONDS) - 10 * 24 * HOUR_SECONDS;
        let old: Vec<Mark> = (0..1_440).map(|minute| scan(day + minute * 60, 1, "success")).collect();
        assert_eq!(texts(&old), ["1,440 scans, 1,440 keys reclaimed"]);
        let most: Vec<Mark> = (0..HOURS * 2).map(|half| scan(NOW - half * 1_800, 1, "success")).rev().collect();
        assert!(texts(&most).len() <= (HOURLY + 1 + (HOURS - HOURLY) / 24 + 1) as usize, "{}", texts(&most).len());
    }

    #[test]
    fn a_change_of_settings_says_what_and_why() {
        let config = |detail| Mark { happened_at: at(NOW), kind: MarkKind::Config, detail };
        let setting = |effort, hz| json!({ "effort": effort, "hz": hz });
        let raised = json!({ "from": setting(1, 10), "to": setting(4, 10), "reason": "900 keys expire a second" });
        let both = json!({ "from": setting(4, 10), "to": setting(1, 20) });
        assert_eq!(texts(&[config(raised.clone())]), ["effort 1 → 4: 900 keys expire a second"]);
        let last = "2 changes of settings, the last: effort 4 → 1, hz 10 → 20";
        assert_eq!(texts(&[config(raised), config(both)]), [last]);
        assert_eq!(texts(&[config(json!({}))]), ["change of settings"]);
    }

    #[test]
    fn rows_are_sorted_and_a_target_is_that_of_hold_else_that_of_the_auto_scan() {
        let points = [at(NOW - 7_200), at(NOW)]
            .map(|taken_at| EstimatePoint { taken_at, primaries: vec![primary(1, None, None)] });
        let mut auto_scan = AutoScan::unset("i");
        auto_scan.target = TargetShare::new(0.05);
        let trend = |policy: &HoldPolicy, auto_scan: &AutoScan| {
            Trend::new(&points, &[scan(NOW - 3_600, 1, "success")], policy, auto_scan, at(NOW))
        };
        let observe = HoldPolicy::default();
        let seen = trend(&observe, &auto_scan);
        assert_eq!(seen.rows.iter().map(|row| NOW - row.at).collect::<Vec<_>>(), [0, 3_600, 7_200]);
        assert_eq!(seen.target, None, "a disabled auto-scan has no target");
        auto_scan.enabled = true;
        assert_eq!(trend(&observe, &auto_scan).target.map(|target| (target.below, target.floor)), Some((0.05, None)));
        let hold = HoldPolicy { level: HoldLevel::Hold, below: 0.08, ..observe };
        let target = trend(&hold, &auto_scan).target.expect("a target");
        assert_eq!((target.below, target.floor), (0.08, Some(0.04)));
    }
}
