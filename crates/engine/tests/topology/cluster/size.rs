//! A cluster of the most primaries that are accepted: a server alone decides how many it names.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use keysweep_engine::{Checkpoint, Monitor, Options, Progress, Stop, sweep};
use keysweep_harness::{HostileServer, Hostility};

/// Most threads of one scan that sweep shards, 64, and some that those of the shards being swept start under the same name.
const MAX_THREADS: usize = 80;

/// Counts the threads that sweep shards, and stops the scan once there are any.
struct Threads {
    most: AtomicUsize,
    stop: Stop,
}

impl Monitor for Threads {
    fn progress(&self, _: &Progress, _: &Checkpoint) {
        let threads = fs::read_dir("/proc/self/task").expect("threads").flatten();
        let names = threads.filter_map(|thread| fs::read_to_string(thread.path().join("comm")).ok());
        let count = names.filter(|name| name.trim_end() == "keysweep-shard").count();
        self.most.fetch_max(count, Ordering::SeqCst);
        if count > 0 {
            self.stop.raise();
        }
    }
}

#[test]
fn a_cluster_of_a_thousand_primaries_is_scanned_by_a_bounded_number_of_threads() {
    // None of its primaries can be reached, so that every thread waits for one.
    let server = HostileServer::start(Hostility::Primaries, "CLUSTER");
    let threads = Threads { most: AtomicUsize::new(0), stop: Stop::new() };
    let target = server.url("CLUSTER").parse().expect("a target");
    let report = sweep(&target, &Options::default(), &threads, &threads.stop);
    assert_eq!(report.shards.len(), 1_000, "{:?}", report.outcome);
    let most = threads.most.load(Ordering::SeqCst);
    assert!((1..=MAX_THREADS).contains(&most), "{most} threads");
}
