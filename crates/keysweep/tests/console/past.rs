//! A month of an instance's past, written into its store as workers would have written it.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use keysweep::{
    model::{EstimatedPrimary, InstanceEstimate, MarkKind},
    store::{Clock, Created, Store},
};
use keysweep_engine::{
    Cycle, Finding, Method,
    stale::{Advice, Code},
};
use keysweep_harness::Installation;
use serde_json::json;

use crate::common::tasks::new_task;

const DAYS: i64 = 30;
/// Days before now since when the effort has been raised.
const HELD: i64 = 9;
/// Days between two scans before that.
const SCAN_EVERY: i64 = 7;
/// Keys of the instance, stale ones included.
const KEYS: u64 = 4_000_000;
/// Bytes of its live keys.
const LIVE_BYTES: f64 = 1.2e9;

/// Returns the stale share some hours ago: it grows until a scan, and is held later on.
fn share(hours_ago: i64) -> f64 {
    if hours_ago < HELD * 24 {
        return 0.065 + 0.008 * (hours_ago as f64 / 7.0).sin();
    }
    let since_scan = SCAN_EVERY * 24 - (hours_ago - HELD * 24) % (SCAN_EVERY * 24);
    0.03 + 0.14 * (1.0 - (-since_scan as f64 / 40.0).exp())
}

fn estimate(taken_at: Timestamp, share: f64) -> InstanceEstimate {
    let finding = Finding {
        keys: KEYS,
        keys_with_ttl: KEYS,
        share: Some(share),
        share_low: Some(share * 0.9),
        share_high: Some(share * 1.1),
        stale_keys: Some((share * KEYS as f64) as u64),
        bytes: Some((share * LIVE_BYTES) as u64),
        method: Some(Method::Sample),
        expiry_rate: Some(900.0),
        ..Finding::default()
    };
    let primary = EstimatedPrimary {
        address: "10.0.0.7:6379".into(),
        finding: finding.clone(),
        approximate: false,
        used_memory: Some((LIVE_BYTES * (1.0 + share)) as u64),
        verdict: Advice {
            code: Code::Pointless,
            reason: "at most 7.3 % are stale, below 10.0 %".into(),
            remedy: None,
            interval_seconds: None,
            setting: None,
        },
        notes: Vec::new(),
        cycle: Cycle::default(),
        gap: None,
    };
    InstanceEstimate { taken_at, total: finding, primaries: vec![primary] }
}

/// Writes the past of an instance: an estimate a day, then one an hour; scans, and changes of settings since `HELD` days.
#[tokio::main(flavor = "current_thread")]
pub async fn write(installation: &Installation, project_id: &str, instance_id: &str) {
    let store = Store::open_sqlite(&installation.database()).await.expect("a store");
    let instance = store.instance(project_id, instance_id).await.expect("read").expect("an instance");
    let now = Timestamp::now();
    let hours = (1..DAYS).rev().map(|day| day * 24).filter(|hours| *hours > 7 * 24).chain((1..=7 * 24).rev());
    for hours_ago in hours {
        let found = estimate(now - hours_ago.hours(), share(hours_ago));
        store.record_estimate(&instance, &found, Duration::from_secs(3_600)).await.expect("recorded");
    }
    let mark = async |hours_ago: i64, kind, detail| {
        let at = store.with_clock(Clock::at(now - hours_ago.hours()));
        at.mark(instance_id, kind, &detail).await.expect("marked");
    };
    for day in (HELD..DAYS).rev().filter(|day| (day - HELD) % SCAN_EVERY == 0) {
        let detail = json!({ "task_id": "t", "status": "success", "keys_scanned": KEYS, "keys_reclaimed": 540_000 });
        mark(day * 24, MarkKind::Scan, detail).await;
    }
    let setting = |effort: u8| json!({ "effort": effort, "hz": 10 });
    for (hours_ago, from, to) in [(HELD * 24 - 2, 1, 4), (HELD * 24 - 30, 4, 5), (60, 5, 4)] {
        let reason = "900 keys expire a second";
        mark(hours_ago, MarkKind::Config, json!({ "from": setting(from), "to": setting(to), "reason": reason })).await;
    }
    store.close().await;
}

/// Adds a scan of an instance that has just finished and left 1,200 stale keys.
#[tokio::main(flavor = "current_thread")]
pub async fn write_scan(installation: &Installation, instance_id: &str) {
    let store = Store::open_sqlite(&installation.database()).await.expect("a store");
    let remaining = json!({ "keys": KEYS, "stale_keys": 1_200, "share": 0.0003, "expired_per_second": 900.0 });
    let detail = json!({ "task_id": "t", "status": "success", "keys_reclaimed": 280_000, "remaining": remaining });
    store.mark(instance_id, MarkKind::Scan, &detail).await.expect("marked");
    store.close().await;
}

/// Adds tasks of an instance that were cancelled before they started.
#[tokio::main(flavor = "current_thread")]
pub async fn write_tasks(installation: &Installation, project_id: &str, instance_id: &str, count: u32) {
    let store = Store::open_sqlite(&installation.database()).await.expect("a store");
    for _ in 0..count {
        let new = new_task(project_id, instance_id);
        let created = store.create_task(&new).await.expect("created");
        assert!(matches!(created, Created::New(_)), "{created:?}");
        store.request_cancel(project_id, &new.id).await.expect("cancelled");
    }
    store.close().await;
}
