//! The time between samples of a server holds whatever name it has, and for holders as well.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use keysweep_engine::{
    Address, BaselineRecord, BaselineRegistry, Change, EstimateRequest, FailureKind, HoldLevel, HoldPolicy, Holder,
    HolderHost, MIN_SAMPLE_INTERVAL, Method, SampleLimit, ServerProcess, Stop, Target, link::Plain,
};
use keysweep_harness::{DataSet, Flavor, Server, eventually};

use crate::methods::{ask, request, try_ask};

/// Samples that are limited, by server, with how long the next one of each has to wait.
#[derive(Debug, Default)]
struct Limit(Mutex<HashMap<ServerProcess, Duration>>);

impl SampleLimit for Limit {
    fn reserve(&self, server: &ServerProcess) -> Result<Option<Duration>, String> {
        Ok(self.0.lock().expect("no panic").get(server).copied().filter(|wait| !wait.is_zero()))
    }

    fn release(&self, server: &ServerProcess, wait: Duration) {
        self.0.lock().expect("no panic").insert(server.clone(), wait);
    }
}

#[test]
fn a_server_is_sampled_once_whatever_name_it_has_and_a_count_on_a_replica_is_no_sample() {
    let primary = Server::start(Flavor::Valkey91);
    DataSet::new().live(19_000).stale(6_000).load(&primary);
    let limit = Arc::new(Limit::default());
    let waits = || limit.0.lock().expect("no panic").values().copied().collect::<Vec<_>>();
    let request = |method| EstimateRequest { samples: Some(limit.clone()), ..request(method) };
    let replica = primary.replica();
    assert_eq!(ask(&primary.url(), &request(None)).total.method, Some(Method::Replica));
    assert!(waits().is_empty(), "nothing was reserved");
    drop(replica);

    let sampled = ask(&primary.url(), &request(Some(Method::Sample)));
    assert_eq!((sampled.total.method, waits()), (Some(Method::Sample), vec![MIN_SAMPLE_INTERVAL]));
    let held = primary.held();
    let other_name = format!("redis://localhost:{}/0", primary.address().port());
    for url in [primary.url(), other_name] {
        let refused = try_ask(&url, &request(Some(Method::Sample))).expect_err("it was sampled");
        assert!(refused.kind == FailureKind::Refused && refused.message.contains("300 s"), "{refused:?}");
    }
    assert_eq!(primary.held(), held, "nothing was reclaimed");

    let small = Server::start(Flavor::Valkey91);
    DataSet::new().live(100).load(&small);
    ask(&small.url(), &request(None));
    assert!(waits().contains(&Duration::ZERO), "a server that is too small to sample may be asked again at once");
}

/// A program around a holder, which allows samples or not.
#[derive(Default)]
struct Host {
    allows: AtomicBool,
    asked: AtomicUsize,
    waits: Mutex<Vec<Duration>>,
}

impl BaselineRegistry for Host {
    fn find(&self, _: &Address) -> Result<Option<BaselineRecord>, String> {
        Ok(None)
    }

    fn unrestored(&self, _: &str) -> Result<Vec<BaselineRecord>, String> {
        Ok(Vec::new())
    }

    fn save(&self, record: &BaselineRecord) -> Result<(), String> {
        panic!("advice writes nothing: {record:?}");
    }
}

impl HolderHost for Host {
    fn registry(&self) -> &dyn BaselineRegistry {
        self
    }

    fn may_write(&self) -> bool {
        false
    }

    fn scan(&self, _: &Address) {}

    fn is_scanning(&self, _: &Address) -> bool {
        false
    }

    fn reserve_sample(&self, _: &ServerProcess, _: bool) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.allows.load(Ordering::Relaxed)
    }

    fn sampled(&self, _: &ServerProcess, wait: Duration) {
        self.waits.lock().expect("no panic").push(wait);
    }

    fn changed(&self, change: &Change) {
        panic!("advice writes nothing: {change:?}");
    }
}

#[test]
fn a_holder_samples_what_it_has_reserved_and_says_how_long_others_have_to_wait() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(19_000).stale(6_000).load(&server);
    let target: Target = server.url().parse().expect("a target");
    let policy = HoldPolicy { level: HoldLevel::Advise, interval_seconds: 1, ..HoldPolicy::default() };
    let (host, mut holder, held) = (Host::default(), Holder::new(policy), server.held());
    let mut round = || holder.round(&Plain, &target, &host, &Stop::new()).expect("a round");
    eventually("a sample is wanted", Duration::from_secs(20), || {
        round();
        (host.asked.load(Ordering::Relaxed) > 2).then_some(())
    });
    assert_eq!((server.held(), host.waits.lock().expect("no panic").len()), (held, 0), "it was not allowed");
    host.allows.store(true, Ordering::Relaxed);
    let wait = eventually("a sample is taken", Duration::from_secs(20), || {
        round();
        host.waits.lock().expect("no panic").first().copied()
    });
    assert!(wait >= MIN_SAMPLE_INTERVAL, "{wait:?}");
    assert!(server.held() < held, "a sample reclaims its stale keys");
}
