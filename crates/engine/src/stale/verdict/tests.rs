//! Verdicts as a table: what is known of a server, and what follows.

use super::*;

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

/// A server with a million keys, all with a TTL, of which `percent` are stale (±1 point) and `rate` expire a second.
fn server(percent: f64, rate: f64) -> Basis {
    Basis {
        share: Some(between(percent - 1.0, percent, percent + 1.0)),
        bytes: Some(GIB),
        keys: 1_000_000,
        workload: Some(load(1_000_000, 1_000_000, rate)),
        may_configure: true,
        scan_seconds: 20.0,
        target: 0.1,
        ..Basis::default()
    }
}

fn between(low: f64, share: f64, high: f64) -> Share {
    Share { share: share / 100.0, low: low.max(0.0) / 100.0, high: high / 100.0 }
}

fn load(keys: u64, with_ttl: u64, rate: f64) -> Workload {
    Workload::split(rate, &[(keys, with_ttl, None)], 16)
}

fn setting(effort: u8, hz: u32) -> CycleSetting {
    CycleSetting { effort, hz }
}

/// Name, basis, expected code, and a part of the reason or the remedy.
fn rows() -> Vec<(&'static str, Basis, Code, &'static str)> {
    use Code::{CannotHold, Pointless, ScanEvery, ScanOnce, SetEffort, Unknown, Unsupported};
    let refused = |basis: Basis| Basis { may_configure: false, ..basis };
    let slow = |basis: Basis| Basis { scan_seconds: 2_000.0, ..basis };
    let below = |target, basis: Basis| Basis { target, ..basis };
    let with = |setting, basis: Basis| Basis { setting, ..basis };
    let unknown_rate = |basis: Basis| Basis { workload: None, ..basis };
    let no_share = |basis: Basis| Basis { share: None, ..basis };
    let right = |right: &str, basis: Basis| Basis { missing_right: Some(right.into()), ..basis };
    let size = |bytes, basis: Basis| Basis { bytes, ..basis };
    let predicted = |basis: Basis| Basis { is_predicted: true, ..basis };
    let small_law = Basis { workload: Some(load(1_000_000, 2_000, 20.0)), ..server(9.5, 0.0) };
    vec![
        (
            "a proxy",
            Basis { unsupported: Some("SCAN is refused".into()), ..server(30.0, 10.0) },
            Unsupported,
            "SCAN is refused",
        ),
        (
            "a server too old, of which nothing is known",
            no_share(Basis { unsupported: Some("too old".into()), ..server(0.0, 0.0) }),
            Unsupported,
            "too old",
        ),
        ("INFO is refused", right("grant +info", no_share(server(0.0, 0.0))), Unknown, "grant +info"),
        (
            "INFO is refused on a small server",
            right("grant +info", no_share(Basis { keys: 5, ..server(0.0, 0.0) })),
            Unknown,
            "grant +info",
        ),
        (
            "a sample that was refused",
            no_share(Basis {
                gap: Some(Gap { cause: "scripts are busy".into(), remedy: Some("grant +scan".into()) }),
                ..server(0.0, 100.0)
            }),
            Unknown,
            "grant +scan",
        ),
        (
            "a refused sample says why the share is unknown",
            no_share(Basis { gap: Some(Gap { cause: "a save runs".into(), remedy: None }), ..server(0.0, 100.0) }),
            Unknown,
            "unknown: a save runs",
        ),
        (
            "a refused sample of few keys",
            no_share(Basis { gap: Some(Gap::default()), keys: 19_999, ..server(0.0, 100.0) }),
            Pointless,
            "19999 keys",
        ),
        (
            "INFO stats are refused, which is no lack of a steady state",
            right("grant +info", unknown_rate(server(9.5, 0.0))),
            Unknown,
            "unknown: a right is missing",
        ),
        ("no share and no cause", no_share(server(0.0, 100.0)), Unknown, "unknown"),
        (
            "few keys that take much memory",
            no_share(Basis { keys: 5_000, used_memory: Some(145 * MIB), ..server(0.0, 100.0) }),
            Unknown,
            "5000 keys are too few for a sample, but take 145 MiB",
        ),
        (
            "few keys that take little memory",
            no_share(Basis { keys: 5_000, used_memory: Some(63 * MIB), ..server(0.0, 100.0) }),
            Pointless,
            "5000 keys",
        ),
        (
            "a prediction below the target, which a batch would not change",
            predicted(server(3.0, 100.0)),
            Unknown,
            "would not show: nothing was measured",
        ),
        (
            "a prediction below the target, with a cause",
            predicted(Basis {
                gap: Some(Gap { cause: "no replica".into(), remedy: Some("attach one".into()) }),
                ..server(3.0, 100.0)
            }),
            Unknown,
            "attach one",
        ),
        ("a prediction above the target", predicted(server(16.0, 1_000.0)), SetEffort, "effort"),
        (
            "a small batch after which nothing expires",
            below(0.025, server(4.0, 0.0)),
            ScanOnce,
            "no key expires any more",
        ),
        ("an interval for a target of parts of a percent", below(0.025, server(4.0, 10.0)), ScanEvery, "--below 2.5%"),
        ("too few keys to sample", no_share(Basis { keys: 19_999, ..server(0.0, 100.0) }), Pointless, "19999 keys"),
        ("no keys", no_share(Basis { keys: 0, workload: None, ..server(0.0, 0.0) }), Pointless, "0 keys"),
        ("nothing stale", server(0.0, 0.0), Pointless, "at most 1.0 %"),
        ("upper end below the target", server(8.9, 100.0), Pointless, "at most 9.9 %"),
        ("upper end just below a low target", below(0.05, server(3.9, 10.0)), Pointless, "below 5.0 %"),
        ("few bytes", below(0.01, size(Some(63 * MIB), server(1.9, 10.0))), Pointless, "63 MiB"),
        ("few bytes, but a large share", below(0.01, size(Some(MIB), server(12.0, 0.0))), ScanOnce, "batch"),
        ("a small share, but many bytes", below(0.01, size(Some(GIB), server(1.9, 10.0))), SetEffort, "2.3 %"),
        ("a small share of unknown size", below(0.01, size(None, server(1.9, 1.0))), ScanEvery, "5h"),
        ("a batch, and nothing expires", server(30.0, 0.0), ScanOnce, "keysweep scan"),
        ("a batch on top of slow expiry", server(20.0, 10.0), ScanOnce, "would hold"),
        ("a batch where CONFIG is refused", refused(server(30.0, 10.0)), ScanOnce, "batch"),
        ("a batch on top of fast expiry", server(28.0, 10_000.0), ScanOnce, "21.5 %"),
        ("a share just above the prediction", server(12.0, 100.0), ScanOnce, "8.5 %"),
        ("fast expiry that explains the share", server(16.0, 1_000.0), SetEffort, "active-expire-effort"),
        ("a large share at an unknown rate", unknown_rate(server(30.0, 0.0)), ScanOnce, "unknown"),
        ("a share near the target at an unknown rate", unknown_rate(server(9.5, 0.0)), Unknown, "steady state"),
        (
            "an unknown rate because INFO stats are refused",
            right("grant +info", unknown_rate(server(9.5, 0.0))),
            Unknown,
            "grant +info",
        ),
        ("long TTLs: an interval of hours", server(9.5, 10.0), ScanEvery, "5h"),
        ("nothing expires any more, but 9.5 % are left", server(9.5, 0.0), ScanOnce, "scan once"),
        ("an interval of an hour", server(9.5, 55.0), ScanEvery, "1h"),
        ("CONFIG is refused, and minutes are enough", refused(server(12.0, 300.0)), ScanEvery, "11m"),
        (
            "CONFIG is refused, and scans are too slow",
            slow(refused(server(12.0, 300.0))),
            CannotHold,
            "parameter of the service",
        ),
        ("CONFIG is refused, and keys expire too fast", refused(server(22.0, 10_000.0)), CannotHold, "best is 21.5 %"),
        ("effort alone", below(0.08, server(16.0, 1_000.0)), SetEffort, "active-expire-effort 6"),
        (
            "a server at effort 4 already",
            with(setting(4, 10), below(0.05, server(9.0, 1_000.0))),
            SetEffort,
            "active-expire-effort 9",
        ),
        (
            "hz, since the highest effort is not enough",
            with(setting(10, 10), below(0.05, server(5.5, 10_000.0))),
            SetEffort,
            "CONFIG SET hz",
        ),
        ("effort and hz", below(0.05, server(22.0, 10_000.0)), SetEffort, "active-expire-effort 10; CONFIG SET hz"),
        ("hz only, because of the stall", with(setting(9, 10), below(0.065, server(7.0, 10_000.0))), SetEffort, "hz"),
        ("no setting, but scans of minutes", below(0.01, server(4.0, 1_000.0)), CannotHold, "best is"),
        (
            "no setting, but fast scans",
            Basis { scan_seconds: 1.5, ..below(0.01, server(4.0, 1_000.0)) },
            ScanEvery,
            "20s",
        ),
        (
            "CONFIG is refused, and ten scans take twice the interval",
            refused(Basis { scan_seconds: 4.0, ..below(0.01, server(4.0, 1_000.0)) }),
            CannotHold,
            "best is 2.0 %",
        ),
        ("neither settings nor scans", slow(below(0.01, server(22.0, 10_000.0))), CannotHold, "best is 3."),
        (
            "the strongest setting already",
            with(setting(10, 100), slow(below(0.02, server(4.0, 10_000.0)))),
            CannotHold,
            "best is 3.",
        ),
        ("a database too small for the law", small_law, ScanEvery, "2h"),
        (
            "a database too small for the law, and slow scans",
            slow(below(0.01, Basis { workload: Some(load(1_000_000, 2_000, 200.0)), ..server(4.0, 0.0) })),
            CannotHold,
            "best is",
        ),
        (
            "half of the keys have no TTL",
            Basis { workload: Some(load(1_000_000, 500_000, 1_000.0)), ..server(9.5, 0.0) },
            SetEffort,
            "active-expire-effort 2",
        ),
    ]
}

#[test]
fn a_verdict_follows_from_what_is_known() {
    assert!(rows().len() >= 40, "only {} rows", rows().len());
    let mut wrong = Vec::new();
    for (name, basis, code, part) in rows() {
        let found = advise(&basis);
        let text = format!("{}. {}", found.reason, found.remedy.clone().unwrap_or_default());
        if found.code != code || !text.contains(part) {
            wrong.push(format!("{name}: {:?}, {text:?} instead of {code:?}, {part:?}", found.code));
        }
        assert_eq!(found.setting.is_some(), found.code == Code::SetEffort, "{name}");
        assert_eq!(found.interval_seconds.is_some(), found.code == Code::ScanEvery, "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_verdict_is_in_the_table() {
    for code in [
        Code::Unsupported,
        Code::Unknown,
        Code::Pointless,
        Code::ScanOnce,
        Code::ScanEvery,
        Code::SetEffort,
        Code::CannotHold,
    ] {
        assert!(rows().iter().any(|(.., expected, _)| *expected == code), "{}", code.as_str());
        assert_eq!(serde_json::to_value(code).expect("JSON"), code.as_str());
    }
}

#[test]
fn an_advised_setting_holds_the_target_with_a_margin() {
    for (name, basis, ..) in rows() {
        let (found, workload) = (advise(&basis), basis.workload.clone().unwrap_or_default());
        if let Some(setting) = found.setting {
            assert!(workload.held_share(setting) <= basis.target * 0.85, "{name}: {setting:?}");
            assert!(setting.effort >= basis.setting.effort && setting.hz >= basis.setting.hz, "{name}: {setting:?}");
        }
    }
}
