//! What a holder knows of a primary that takes a write and does not answer.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use keysweep_engine::{HoldLevel, HoldPolicy, HoldStatus, Holder, Restored, Stop, Target};
use keysweep_harness::{Churn, Flavor, Server, VendorProxy, Words, eventually};

use crate::memory::Memory;

const TIMEOUT: Duration = Duration::from_secs(60);

fn effort(server: &Server) -> u8 {
    let pair: Vec<String> =
        redis::cmd("CONFIG").arg("GET").arg("active-expire-effort").query(&mut server.connection()).expect("a value");
    pair[1].parse().expect("a number")
}

/// A service that ends now must not say that nothing is to be restored, nor may a holder forget the server.
#[test]
fn a_server_has_not_its_own_settings_from_a_lost_reply_until_they_are_read() {
    let server = Server::start(Flavor::Valkey91);
    let own = effort(&server);
    let churn = Churn::start(&server, 3_000, Duration::from_secs(3));
    let (is_away, has_hung) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (away, hung, connection) = (Arc::clone(&is_away), Arc::clone(&has_hung), Mutex::new(server.connection()));
    let proxy = VendorProxy::before(&server, move |command| {
        let is_set = command.len() == 4 && command[..2] == ["CONFIG", "SET"];
        if is_set && !hung.swap(true, Ordering::Relaxed) {
            let mut connection = connection.lock().expect("no panic");
            redis::cmd("CONFIG").arg(&command[1..]).exec(&mut *connection).expect("set");
            away.store(true, Ordering::Relaxed);
        }
        away.load(Ordering::Relaxed).then_some(Words::Close)
    });

    let policy = HoldPolicy {
        level: HoldLevel::Hold,
        below: 0.05,
        max_added_stall_ms: 10.0,
        max_added_cpu: 0.2,
        interval_seconds: 1,
        settle_floor_seconds: 600,
        ..HoldPolicy::default()
    };
    let target: Target = proxy.url().parse().expect("a target");
    let (dialer, host, stop) = (target.dialer().expect("a dialer"), Memory::default(), Stop::new());
    let mut holder = Holder::new(policy);
    let mut round = || -> HoldStatus {
        thread::sleep(Duration::from_millis(600));
        let _ = holder.round(&*dialer, &target, &host, &stop);
        holder.statuses().first().map(|node| node.status.clone()).unwrap_or_default()
    };
    let status = eventually("a reply is lost", TIMEOUT, || {
        let status = round();
        has_hung.load(Ordering::Relaxed).then_some(status)
    });
    assert_ne!(effort(&server), own);
    assert_eq!((status.setting, host.changes().len()), (None, 0), "{status:?}");
    let status = round();
    assert_eq!(status.setting, None, "it is still away: {status:?}");
    assert!(host.records().iter().all(|record| !record.is_restored) && host.records().len() == 1);

    drop(churn);
    is_away.store(false, Ordering::Relaxed);
    let status = round();
    assert_eq!(status.setting.map(|setting| setting.effort), Some(effort(&server)), "{status:?}");
    let changes = host.changes();
    assert!(changes.len() == 1 && changes[0].reason.contains("the reply was lost"), "{changes:?}");
    let restored = holder.finish(&*dialer, &target, &host);
    assert!(restored.iter().all(Restored::is_done) && restored.len() == 1, "{restored:?}");
    assert_eq!(effort(&server), own);
}
