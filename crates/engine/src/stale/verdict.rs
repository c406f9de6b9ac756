//! What to do about the stale keys of a primary: one verdict, its reason and its remedy.

use serde::{Deserialize, Serialize};

use super::{
    cost::CycleCost,
    interval::{ScanInterval, interval_from_rate},
    law::CycleSetting,
    sample::{MIN_SAMPLED_KEYS, Share},
    steer::{best_share, weakest_setting},
    workload::Workload,
};

/// Verdicts, in the order in which they are considered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The server cannot be scanned.
    Unsupported,
    /// Too little is known: a right is missing, or the server is not in steady state.
    Unknown,
    /// The stale share is below the target, or too small to matter.
    Pointless,
    /// A batch has expired: one scan removes it.
    ScanOnce,
    /// Regular scans hold the target.
    ScanEvery,
    /// The server's own cycle holds the target with another setting.
    SetEffort,
    /// Neither scans nor settings hold the target.
    CannotHold,
}

impl Code {
    /// Returns the code in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::Unknown => "unknown",
            Self::Pointless => "pointless",
            Self::ScanOnce => "scan_once",
            Self::ScanEvery => "scan_every",
            Self::SetEffort => "set_effort",
            Self::CannotHold => "cannot_hold",
        }
    }
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Advice {
    /// The verdict.
    pub code: Code,
    /// Why, one sentence.
    pub reason: String,
    /// What to do: a command, or a change of rights; `None`: nothing.
    pub remedy: Option<String>,
    /// Seconds between scans, for [`Code::ScanEvery`].
    pub interval_seconds: Option<f64>,
    /// The setting, for [`Code::SetEffort`].
    pub setting: Option<CycleSetting>,
}

/// Why a stale share is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The cause, a clause about the server.
    pub cause: String,
    /// What to do so that it becomes known: a right to grant, or another time.
    pub remedy: Option<String>,
}

/// What a verdict is based on.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Basis {
    /// Why the server cannot be scanned.
    pub unsupported: Option<String>,
    /// The right to grant where even the number of keys is unknown without it.
    pub missing_right: Option<String>,
    /// Why the share is unknown, where it is and a cause is known.
    pub gap: Option<Gap>,
    /// Stale share of all keys.
    pub share: Option<Share>,
    /// Whether the share is what the law predicts, and nothing was measured: keys that expired together do not show in it.
    pub is_predicted: bool,
    /// Bytes of the stale keys, the upper end where there is one.
    pub bytes: Option<u64>,
    /// All keys of the primary.
    pub keys: u64,
    /// Bytes that all of its data takes, where that is known.
    pub used_memory: Option<u64>,
    /// Keys that expire, by database; `None`: the server is not in steady state, so that the rate is unknown.
    pub workload: Option<Workload>,
    /// Current setting of the cycle. Where it cannot be read, the servers' default.
    pub setting: CycleSetting,
    /// Whether CONFIG SET is allowed.
    pub may_configure: bool,
    /// Seconds that a scan takes.
    pub scan_seconds: f64,
    /// Cost of the cycle on this server.
    pub cost: CycleCost,
    /// Share of all keys that may be stale, 0–1.
    pub target: f64,
}

/// Stale bytes and share below which a server needs no attention, whatever the target.
const SMALL_BYTES: u64 = 64 << 20;
const SMALL_SHARE: f64 = 0.02;
/// A share is a batch if it exceeds what the law predicts by more than the first, and is more than the second.
const BATCH_EXCESS: f64 = 0.03;
const BATCH_SHARE: f64 = 0.1;
/// Interval from which scans are preferred to another setting, seconds.
const LONG_INTERVAL: f64 = 3_600.0;
/// Why something is unknown without a right.
const MISSING_RIGHT: &str = "a right is missing";
/// Part of the target that a setting has to hold: the law is right within a point.
pub(crate) const MARGIN: f64 = 0.85;

/// Whether a share is more than the cycle would leave: keys that expired together, which a scan removes.
pub(crate) fn is_batch(share: f64, predicted: f64) -> bool {
    share > BATCH_SHARE.max(predicted + BATCH_EXCESS)
}

/// Returns the verdict.
pub fn advise(basis: &Basis) -> Advice {
    let (target, law) = (basis.target, basis.workload.as_ref().filter(|workload| workload.follows_the_law()));
    if let Some(cause) = &basis.unsupported {
        return advice(Code::Unsupported, cause.clone(), None);
    }
    let Some(share) = basis.share else {
        if basis.keys < MIN_SAMPLED_KEYS && basis.missing_right.is_none() {
            return too_few(basis.keys, basis.used_memory);
        }
        let gap = match (&basis.missing_right, &basis.gap) {
            (Some(right), _) => Some(Gap { cause: MISSING_RIGHT.into(), remedy: Some(right.clone()) }),
            (None, gap) => gap.clone(),
        };
        let reason = "the stale share is unknown";
        return match gap {
            Some(Gap { cause, remedy }) => advice(Code::Unknown, format!("{reason}: {cause}"), remedy),
            None => advice(Code::Unknown, reason.into(), None),
        };
    };
    if basis.is_predicted && share.high < target {
        let (cause, remedy) =
            basis.gap.clone().map_or(("nothing was measured".to_owned(), None), |gap| (gap.cause, gap.remedy));
        let reason = format!(
            "the server's own cycle holds ≈ {}, below {}, but keys that expired together would not show: {cause}",
            percent(share.share),
            percent(target)
        );
        return advice(Code::Unknown, reason, remedy);
    }
    if share.high < target {
        return advice(
            Code::Pointless,
            format!("at most {} are stale, below {}", percent(share.high), percent(target)),
            None,
        );
    }
    if let Some(bytes) = basis.bytes.filter(|bytes| *bytes < SMALL_BYTES && share.share < SMALL_SHARE) {
        let reason = format!("{} are stale, in no more than {} MiB", percent(share.share), bytes.div_ceil(1 << 20));
        return advice(Code::Pointless, reason, None);
    }
    let predicted = law.map(|workload| workload.held_share(basis.setting));
    let nothing_expires = basis.workload.as_ref().is_some_and(|workload| workload.rate() <= 0.0);
    if nothing_expires || is_batch(share.share, predicted.unwrap_or(0.0)) {
        let reason = match predicted {
            _ if nothing_expires => {
                format!("{} are stale, and no key expires any more: a batch has expired", percent(share.share))
            }
            Some(predicted) => format!(
                "{} are stale, and the server's own cycle would hold {}: a batch has expired",
                percent(share.share),
                percent(predicted)
            ),
            None => format!("{} are stale, and how many keys expire a second is unknown", percent(share.share)),
        };
        return advice(Code::ScanOnce, reason, Some("run keysweep scan once, then estimate again".into()));
    }
    let Some(workload) = &basis.workload else {
        let (cause, remedy) = match &basis.missing_right {
            Some(right) => (MISSING_RIGHT, right.as_str()),
            None => ("the server is not in steady state", "estimate again in a few minutes"),
        };
        let reason = format!("how many keys expire a second is unknown: {cause}");
        return advice(Code::Unknown, reason, Some(remedy.into()));
    };
    hold(basis, workload, law)
}

/// Returns what follows from so few keys that no sample is taken: nothing, unless they are large.
fn too_few(keys: u64, used_memory: Option<u64>) -> Advice {
    match used_memory.filter(|bytes| *bytes >= SMALL_BYTES) {
        None => advice(Code::Pointless, format!("{keys} keys are too few to matter"), None),
        Some(bytes) => {
            let reason = format!(
                "the stale share is unknown: {keys} keys are too few for a sample, but take {} MiB",
                bytes.div_ceil(1 << 20)
            );
            advice(Code::Unknown, reason, Some("run keysweep scan, which takes about a second".into()))
        }
    }
}

/// Returns the lever that holds the target while keys keep expiring. `law`: the workload, where the law holds for it.
fn hold(basis: &Basis, workload: &Workload, law: Option<&Workload>) -> Advice {
    let (target, rate) = (basis.target, workload.rate());
    let interval = ScanInterval::of(interval_from_rate(target, workload.keys(), rate), basis.scan_seconds, target);
    let scans = |seconds: f64| Advice {
        interval_seconds: Some(seconds),
        ..advice(
            Code::ScanEvery,
            format!(
                "{rate:.0} keys expire a second; a scan every {} holds {} in the mean",
                time(seconds),
                percent(target)
            ),
            Some(format!("keysweep autoscan set INSTANCE --below {}%", hundredths(100.0 * target))),
        )
    };
    if let ScanInterval::Every(seconds) = interval
        && (!basis.may_configure || seconds >= LONG_INTERVAL)
    {
        return scans(seconds);
    }
    let setting = law
        .filter(|_| basis.may_configure)
        .and_then(|workload| weakest_setting(workload, basis.setting, target * MARGIN, basis.cost));
    match (setting, interval) {
        (Some(setting), _) => steer(basis, workload, setting),
        (None, ScanInterval::Every(seconds)) => scans(seconds),
        (None, ScanInterval::CannotHold(by_scans)) => {
            let by_setting = law.map(|law| match basis.may_configure {
                true => best_share(law, basis.setting, basis.cost),
                // Whatever scans do, the cycle goes on with its own setting.
                false => law.held_share(basis.setting),
            });
            let best = by_setting.map_or(by_scans, |best| best.min(by_scans));
            let reason = format!(
                "{rate:.0} keys expire a second; {} is not held, the best is {}",
                percent(target),
                percent(best)
            );
            let remedy = (!basis.may_configure)
                .then(|| "raise active-expire-effort, which some providers offer as a parameter of the service".into());
            advice(Code::CannotHold, reason, remedy)
        }
    }
}

fn steer(basis: &Basis, workload: &Workload, setting: CycleSetting) -> Advice {
    let mut commands = Vec::new();
    if setting.effort != basis.setting.effort {
        commands.push(format!("CONFIG SET active-expire-effort {}", setting.effort));
    }
    if setting.hz != basis.setting.hz {
        commands.push(format!("CONFIG SET hz {}", setting.hz));
    }
    let reason = format!(
        "{:.0} keys expire a second, of which the server holds {} now and {} with this setting, until it restarts",
        workload.rate(),
        percent(workload.held_share(basis.setting)),
        percent(workload.held_share(setting))
    );
    Advice { setting: Some(setting), ..advice(Code::SetEffort, reason, Some(commands.join("; "))) }
}

fn advice(code: Code, reason: String, remedy: Option<String>) -> Advice {
    Advice { code, reason, remedy, interval_seconds: None, setting: None }
}

/// Formats a number with two decimals at most, as options take it.
fn hundredths(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Formats a share in percent.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.1} %", share * 100.0)
}

/// Formats seconds in whole minutes or hours, rounded down: a shorter interval holds less.
fn time(seconds: f64) -> String {
    let seconds = seconds as u64;
    match (seconds / 3_600, seconds / 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m"),
        (hours, _) => format!("{hours}h"),
    }
}

#[cfg(test)]
mod tests;
