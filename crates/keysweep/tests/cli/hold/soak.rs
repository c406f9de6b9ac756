//! Minutes of churn on real servers: the true stale share, what clients wait, and targets out of reach.

use std::{
    thread,
    time::{Duration, Instant},
};

use keysweep_harness::{Churn, Flavor, Server, eventually, installation};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    TIMEOUT,
    clients::{Clients, Latencies},
    hold, output, setting,
};

/// Positions of latencies with nothing running, and while the share is held.
const NOTHING: usize = 0;
const HELD: usize = 1;

/// Five minutes of churn with a step up and a step down: the true share, second by second.
#[rstest::rstest]
#[ignore = "for make soak: minutes"]
fn soak_a_share_is_held_through_a_fivefold_step(#[values(Flavor::Valkey91, Flavor::Redis82)] flavor: Flavor) {
    let installation = installation!();
    let server = Server::start(flavor);
    let own = setting(&server);
    let churn = Churn::start(&server, 2_000, Duration::from_secs(30));
    let clients = Clients::start(&server);
    thread::sleep(Duration::from_secs(60));
    let mut slow = [Latencies::default(), Latencies::default()];
    let mut fast = slow.clone();
    slow[NOTHING].add(&clients);
    let data = tempfile::tempdir().expect("a folder");
    let options = "--below 8% --interval 5s --settle-floor 15s --max-effort 9 --max-hz 30";
    let options: Vec<&str> = options.split(' ').collect();
    let mut process = hold(&installation, &server.url(), data.path(), &options);
    let without = churn.mean_share(&server, Duration::from_secs(10));
    eventually("the target is held", TIMEOUT, || output(data.path()).contains(": holding: ").then_some(()));
    let at = |seconds| churn.mean_share(&server, Duration::from_secs(seconds));
    let first = at(40);
    slow[HELD].add(&clients);
    churn.set_rate(10_000);
    let (mut highest, mut back) = (0.0_f64, None);
    for second in (2..=90).step_by(2) {
        let share = at(2);
        highest = highest.max(share);
        match share <= 0.085 {
            true => drop(back.get_or_insert(second)),
            false => back = None,
        }
    }
    let (second, raised) = (at(30), setting(&server));
    fast[HELD].add(&clients);
    churn.set_rate(2_000);
    thread::sleep(Duration::from_secs(40));
    let third = at(30);
    slow[HELD].add(&clients);
    println!(
        "{flavor:?}: {without:.3} without; {first:.3} at 2,000/s; step to 10,000/s: highest {highest:.3}, back after \
         {back:?} s, {second:.3} with {raised:?}; {third:.3} at 2,000/s again\n{}",
        output(data.path())
    );
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    let exit = eventually("it ends", TIMEOUT, || process.try_wait().expect("a child"));
    assert_eq!((exit.code(), setting(&server)), (Some(0), own), "{}", output(data.path()));
    // With nothing again, at both rates: the speed of a machine drifts.
    thread::sleep(Duration::from_secs(40));
    slow[NOTHING].add(&clients);
    churn.set_rate(10_000);
    thread::sleep(Duration::from_secs(60));
    fast[NOTHING].add(&clients);
    let ratios = [&slow, &fast].map(|at| at[HELD].median() / at[NOTHING].median());
    println!("{flavor:?}: clients' p90 at 2,000/s {slow:?}, at 10,000/s {fast:?}; held by nothing {ratios:.2?}");
    assert!(without > 0.15, "{without} without anything");
    assert!([first, second, third].iter().all(|share| *share <= 0.085), "{first} {second} {third}");
    assert!(ratios.iter().all(|ratio| *ratio <= 1.2), "clients' p90 with nothing and held: {slow:?}, {fast:?}");
    assert!(highest <= 0.12 && back.is_some_and(|seconds| seconds <= 60), "{highest}, back after {back:?}");
}

#[rstest::rstest]
#[ignore = "for make soak: minutes"]
fn soak_a_target_beyond_the_default_limits_is_reported(#[values(Flavor::Valkey91, Flavor::Redis82)] flavor: Flavor) {
    let installation = installation!();
    let server = Server::start(flavor);
    let own = setting(&server);
    let _churn = Churn::start(&server, 20_000, Duration::from_secs(20));
    thread::sleep(Duration::from_secs(40));
    let data = tempfile::tempdir().expect("a folder");
    let mut process = hold(&installation, &server.url(), data.path(), &["--interval", "5s", "--settle-floor", "15s"]);
    // Where a limit is broken, the server has its own settings for ten minutes first.
    let deadline = Instant::now() + Duration::from_secs(840);
    while !output(data.path()).contains(": cannot_hold: ") && Instant::now() < deadline {
        thread::sleep(Duration::from_secs(1));
    }
    // It stays so, with the settings that the limits allow.
    thread::sleep(Duration::from_secs(60));
    let said = output(data.path());
    println!("{flavor:?}: {:?}\n{said}", setting(&server));
    let mut states = said.lines().filter(|line| line.contains(": cannot_hold: ") || line.contains(": backing_off: "));
    let last = states.next_back().unwrap_or_default();
    assert!(last.contains("the limits are reached; effort"), "{flavor:?} is not said to be out of reach: {last}");
    kill_process(Pid::from_child(&process), Signal::TERM).expect("it runs");
    eventually("it ends", TIMEOUT, || process.try_wait().expect("a child"));
    assert_eq!(setting(&server), own);
}
