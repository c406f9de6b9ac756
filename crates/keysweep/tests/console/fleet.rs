//! A fleet of 30 instances in every state that the list shows, written into the store as workers would have written it. No server
//! stands behind them: none is polled, and no scan of theirs starts.

use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use keysweep::{
    model::{
        AutoScan, EstimatedPrimary, Instance, InstanceEstimate, InstanceStats, Labels, NewTask, PollCode, PollFailure,
        Reason, Sampling, ScanType, Stored, now,
    },
    random::new_id,
    store::{Clock, Created, Heartbeat, Store, TaskResult},
};
use keysweep_engine::{
    Cycle, Finding, Inspection, Method, Progress,
    stale::{Advice, Code},
};
use keysweep_harness::Installation;

pub const INSTANCES: usize = 30;
/// Name of the instance whose host is as long as hosts are.
pub const LONG: &str = "checkout-sessions-of-the-loyalty-programme-in-eu-west-1a";
/// A host of 60 characters.
pub const LONG_HOST: &str = "cache-7f3c9a.sessions.production.eu-west-1a.internal.example";

/// A state that several instances are in.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Scanned,
    Scheduled,
    Scanning,
    /// A scan waits for the maintenance window.
    Waiting,
    ScanFailed,
    NotReached(PollCode),
    Paused,
    /// Registered a moment ago.
    New,
}

fn state(number: usize) -> State {
    match number {
        3 | 17 => State::Scanning,
        5 => State::Waiting,
        7 | 22 => State::ScanFailed,
        2 | 19 => State::NotReached(PollCode::Unreachable),
        11 => State::NotReached(PollCode::Authentication),
        14 => State::NotReached(PollCode::Tls),
        24 => State::NotReached(PollCode::Permission),
        9 | 26 => State::Paused,
        29 => State::New,
        _ if number.is_multiple_of(3) => State::Scheduled,
        _ => State::Scanned,
    }
}

fn failure(code: PollCode, address: &str) -> PollFailure {
    let cause = match code {
        PollCode::Authentication => format!("{address} refuses the user or the password; check both (WRONGPASS)"),
        PollCode::Tls => {
            format!("no encrypted connection to {address}: the certificate is signed by an unknown authority")
        }
        PollCode::Permission => {
            format!("{address} refuses a command (NOPERM); grant the user what docs/servers.md lists")
        }
        _ => format!(
            "cannot connect to {address}: connection refused; check host, port and firewall, and that the server is running"
        ),
    };
    PollFailure::new(code, cause)
}

fn instance(project_id: &str, number: usize) -> Instance {
    let (host, port) = (format!("10.20.{}.{}", number / 8, 10 + number), 6_379);
    let roles = ["sessions", "carts", "prices", "search", "limits", "queue", "feeds"];
    let (name, url) = match number {
        2 => (LONG.to_owned(), format!("redis://{LONG_HOST}:{port}")),
        6 => ("catalogue".into(), format!("redis-cluster://{host}:7000,{host}:7001,{host}:7002")),
        13 => ("orders".into(), format!("redis-sentinel://{host}:26379,10.20.9.9:26379/orders")),
        14 => ("payments".into(), format!("rediss://payments.eu.example:{port}")),
        20 => ("local-limits".into(), "unix:///run/valkey/limits.sock".into()),
        _ => (format!("{}-{:02}", roles[number % roles.len()], number), format!("redis://{host}:{port}")),
    };
    let labels =
        format!("env={} team={}", ["prod", "staging"][usize::from(number % 5 == 4)], ["web", "data"][number % 2]);
    Instance {
        labels: Labels::typed(&labels).expect("labels").into(),
        sampling: Sampling::Off,
        paused: state(number) == State::Paused,
        ..Instance::new(new_id(), project_id.into(), name, url, now() - (60 * 24).hours())
    }
}

fn stats(number: usize, seen_at: Timestamp) -> InstanceStats {
    let keys = 40_000 * (1 + (number as u64 * 7) % 23) * (1 + (number as u64 % 4) * 9);
    let server = Inspection {
        engine: if number.is_multiple_of(4) { "redis" } else { "valkey" }.into(),
        engine_version: if number.is_multiple_of(4) { "7.2.7" } else { "8.1.3" }.into(),
        run_ids: vec![format!("{number:040x}")],
        primaries: vec![format!("10.20.{}.{}:6379", number / 8, 10 + number).parse().expect("an address")],
        cluster: number == 6,
        keys,
        keys_with_ttl: keys / 10 * 9,
        stale_keys: Some((keys as f64 * share(number)) as u64),
        used_memory: keys * 420,
        max_memory: keys * 700,
        ..Inspection::default()
    };
    InstanceStats { server, seen_at }
}

fn share(number: usize) -> f64 {
    [0.02, 0.31, 0.08, 0.0, 0.17, 0.05, 0.44, 0.11][number % 8]
}

/// Only every other instance is estimated; the share of the others is a hint of their servers.
fn estimate(number: usize, taken_at: Timestamp) -> Option<InstanceEstimate> {
    let stats = stats(number, taken_at);
    let share = share(number);
    let total = Finding {
        keys: stats.keys,
        keys_with_ttl: stats.keys_with_ttl,
        share: Some(share),
        share_low: Some(share * 0.9),
        share_high: Some(share * 1.1),
        bytes: Some((share * stats.used_memory as f64) as u64),
        method: Some(Method::Replica),
        ..Finding::default()
    };
    let verdict = Advice {
        code: if share < 0.1 { Code::Pointless } else { Code::ScanEvery },
        reason: format!("{:.1} % are stale, {} 10.0 %", share * 100.0, if share < 0.1 { "below" } else { "above" }),
        remedy: (share >= 0.1).then(|| "keysweep autoscan set INSTANCE --below 10%".to_owned()),
        interval_seconds: None,
        setting: None,
    };
    let primary = EstimatedPrimary {
        address: stats.primaries[0].to_string(),
        finding: total.clone(),
        approximate: false,
        used_memory: Some(stats.used_memory),
        verdict,
        notes: Vec::new(),
        cycle: Cycle::default(),
        gap: None,
    };
    number.is_multiple_of(2).then(|| InstanceEstimate { taken_at, total, primaries: vec![primary] })
}

/// Creates a task of an instance some hours ago.
async fn task(store: &Store, instance: &Instance, hours_ago: i64) {
    let new = NewTask {
        id: new_id(),
        project_id: instance.project_id.clone(),
        instance_id: instance.id.clone(),
        scan_type: ScanType::Manual,
        triggered_by: Some("operator".into()),
        timeout: Duration::from_secs(21_600),
        keys_per_second: None,
        due_at: None,
        hosts: Vec::new(),
        history_retention: 1_000,
    };
    let past = store.with_clock(Clock::at(now() - hours_ago.hours()));
    let created = past.create_task(&new).await.expect("created");
    assert!(matches!(created, Created::New(_)), "{created:?}");
}

/// Scans an instance some hours ago, with this outcome; `None`: the scan has not finished.
async fn scan(store: &Store, instance: &Instance, hours_ago: i64, outcome: Option<Result<(), (Reason, String)>>) {
    let keys = instance.stats.as_ref().map_or(0, |stats| stats.keys);
    task(store, instance, hours_ago).await;
    let past = store.with_clock(Clock::at(now() - hours_ago.hours()));
    let claim = past.claim("fleet", Duration::from_secs(60), u32::MAX).await.expect("claimed").expect("a task");
    assert_eq!(claim.instance.id, instance.id);
    let progress =
        Progress { fraction: 0.42, keys_per_second: 81_000.0, eta_seconds: Some(90.0), ..Progress::default() };
    let heartbeat = Heartbeat {
        used: Duration::from_secs(48),
        reclaimed: if outcome == Some(Ok(())) { keys / 7 } else { 0 },
        scanned: keys,
        exact: true,
        progress: Some(serde_json::to_string(&progress).expect("JSON")),
        checkpoint: None,
    };
    match outcome {
        Some(outcome) => {
            past.finish(&claim.lease, &TaskResult { outcome, heartbeat, report: None }).await.expect("held");
        }
        None => {
            // Its worker never dies.
            let day = Duration::from_secs(24 * 3_600);
            store.heartbeat(&claim.lease, day, &heartbeat).await.expect("held");
        }
    }
}

/// Writes the fleet into a project that has no instances yet. Returns the id of the instance with the long host.
#[tokio::main(flavor = "current_thread")]
pub async fn write(installation: &Installation, project_id: &str) -> String {
    let store = Store::open_sqlite(&installation.database()).await.expect("a store");
    let now = now();
    let mut long = String::new();
    for number in 0..INSTANCES {
        let mut instance = instance(project_id, number);
        let state = state(number);
        if state == State::Waiting {
            let opens = (now + 6.hours()).strftime("%H:00").to_string();
            let closes = (now + 8.hours()).strftime("%H:00").to_string();
            instance.window = Some(Stored::read(format!("{opens}-{closes} UTC")));
            instance.window_binds_manual = true;
        }
        if number == 2 {
            long.clone_from(&instance.id);
        }
        let is_paused = std::mem::take(&mut instance.paused);
        store.add_instance(&instance).await.expect("added");
        if state == State::New {
            continue;
        }
        let stats = stats(number, now - 40.seconds());
        store.record_stats(&instance, &stats).await.expect("kept");
        instance.stats = Some(stats);
        if let Some(estimate) = estimate(number, now - 20.minutes()) {
            store.record_estimate(&instance, &estimate, Duration::from_secs(3_600)).await.expect("recorded");
        }
        let denied = "the user may not run SCAN; grant +scan +multi +exec +dbsize +select".to_owned();
        let hours_ago = 1 + (number as i64 * 11) % 200;
        match state {
            State::Scanning => scan(&store, &instance, 0, None).await,
            State::Waiting => task(&store, &instance, 0).await,
            State::ScanFailed => scan(&store, &instance, hours_ago, Some(Err((Reason::Denied, denied)))).await,
            _ => scan(&store, &instance, hours_ago, Some(Ok(()))).await,
        }
        if let State::NotReached(code) = state {
            let address = instance.seeds().first().expect("a node").to_string();
            store.record_unreachable(&instance, &failure(code, &address)).await.expect("kept");
        }
        if state == State::Scheduled {
            let config = AutoScan {
                enabled: true,
                first_scan_at: Some(now + (3 + number as i64).hours()),
                updated_at: now,
                ..AutoScan::unset(&instance.id)
            };
            store.set_auto_scan(None, &config).await.expect("kept").expect("kept");
        }
        if is_paused {
            store.update_instance(&instance, &Instance { paused: true, ..instance.clone() }).await.expect("paused");
        }
    }
    // The service does not poll them: their turn comes in ten years.
    let late = store.with_clock(Clock::at(now + (10 * 365 * 24).hours()));
    late.claim_polls(Duration::from_secs(60), INSTANCES as u32, &[]).await.expect("claimed");
    store.close().await;
    long
}
