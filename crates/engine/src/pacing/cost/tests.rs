//! Tests of the cost meter, with a server and a network in virtual time.

use proptest::prelude::*;

use super::*;
use crate::{
    limits::Limits,
    pacing::pace::{Decision, Pace},
};

const START: ScanStatistics =
    ScanStatistics { calls: 7, scan: Duration::from_millis(3), commands: 0, cpu: Some(Duration::from_secs(2)) };

fn slice(count: u32) -> Measured {
    Measured { count, reclaimed: 0, scan: None, excess: Some(Duration::from_micros(150)), commands: 6 }
}

fn after(slices: u64, micros: u64) -> ScanStatistics {
    ScanStatistics { calls: START.calls + slices, scan: START.scan + Duration::from_micros(micros), ..START }
}

/// Returns a meter that has read the counters before the first slice.
fn meter() -> CostMeter {
    let mut meter = CostMeter::new(1e-6, Some(Clients::default()), false);
    meter.read(Duration::ZERO, START);
    meter
}

#[test]
fn a_reading_says_what_slices_cost_and_by_how_much_the_estimate_was_wrong() {
    let mut meter = meter();
    assert_eq!(meter.record(&slice(100)), Duration::from_micros(130), "the expected cost, and the overhead");
    assert!(meter.wants_reading(), "after the first slice");
    let correction = meter.read(Duration::from_millis(1), after(1, 40));
    assert!((correction + 60e-6).abs() < 1e-9, "{correction}");
    assert_eq!(meter.record(&slice(200)), Duration::from_micros(110));
}

#[test]
fn the_first_slices_with_their_cold_caches_do_not_outweigh_those_that_follow() {
    let (mut meter, mut cold) = (meter(), meter());
    let run = |meter: &mut CostMeter, slices: u64| {
        for _ in 0..slices {
            meter.record(&slice(100));
        }
    };
    let micros = |meter: &CostMeter| meter.per_unit().map(|seconds| (seconds * 1e8).round() / 100.0);
    run(&mut meter, 1);
    meter.read(Duration::from_millis(1), after(1, 200));
    assert_eq!(micros(&meter), Some(2.0), "as long as it is all that is known");
    run(&mut meter, 80);
    meter.read(Duration::from_millis(70), after(81, 200 + 80 * 40));
    assert_eq!(micros(&meter), Some(0.4));
    // Nor do several readings of a few.
    let (mut slices, mut scan) = (0, 0);
    for (more, each) in [(1, 200), (2, 150), (80, 40)] {
        run(&mut cold, more);
        (slices, scan) = (slices + more, scan + more * each);
        cold.read(Duration::from_millis(slices), after(slices, scan));
    }
    assert_eq!(micros(&cold), Some(0.4));
    // A server that has become slower is heard by its second reading.
    for (at, all, scan) in [(140, 161, 3_400 + 80 * 90), (210, 241, 3_400 + 160 * 90)] {
        run(&mut meter, 80);
        meter.read(Duration::from_millis(at), after(all, scan));
    }
    assert_eq!(micros(&meter), Some(0.9));
}

#[test]
fn the_time_by_the_servers_clock_needs_no_reading() {
    let mut meter = CostMeter::new(1e-6, Some(Clients::default()), true);
    let timed = Measured { scan: Some(Duration::from_micros(90)), reclaimed: 100, ..slice(100) };
    assert_eq!(meter.record(&timed), Duration::from_micros(90 + 30 + 30), "a part for each reclaimed key");
}

#[test]
fn readings_that_count_other_slices_are_thrown_away() {
    let own = |meter: &mut CostMeter| {
        let _ = (0..10).map(|_| meter.record(&slice(100))).sum::<Duration>();
        meter.clone()
    };
    let mut meter = meter();
    let known = |meter: &CostMeter| meter.per_unit();
    let mut other_scans = own(&mut meter);
    assert_eq!(other_scans.read(Duration::from_secs(1), after(11, 99_000)), 0.0);
    let mut reset = own(&mut meter.clone());
    assert_eq!(reset.read(Duration::from_secs(1), ScanStatistics { calls: 2, scan: Duration::ZERO, ..START }), 0.0);
    assert_eq!((known(&other_scans), known(&reset)), (None, None));
    // The next difference counts again.
    own(&mut other_scans);
    other_scans.read(Duration::from_secs(2), after(11 + 10, 99_000 + 500));
    assert!((known(&other_scans).expect("a cost") - 0.5e-6).abs() < 1e-12, "{other_scans:?}");
}

#[test]
fn without_statistics_a_low_quantile_of_the_round_trips_decides() {
    let mut meter = CostMeter::new(1e-6, Some(Clients::default()), false);
    let cost = |meter: &mut CostMeter, excess: u64| {
        meter.record(&Measured { excess: Some(Duration::from_micros(excess)), ..slice(100) })
    };
    // Of sixteen replies four are late by up to two milliseconds.
    let costs: Vec<Duration> =
        (0..64u64).map(|n| cost(&mut meter, if n % 4 == 0 { 500 + n * 23 } else { 140 + n % 3 })).collect();
    let last = costs.last().expect("64 slices");
    assert!((140..150).contains(&(last.as_micros() as u64)), "{last:?}");
}

#[test]
fn where_others_scan_all_the_time_round_trips_decide_again() {
    let mut meter = meter();
    for n in 1..=u64::from(MAX_USELESS) {
        meter.record(&slice(100));
        meter.read(Duration::from_millis(n), after(2 * n, 500 * n));
    }
    assert_eq!(meter.record(&slice(100)), Duration::from_micros(150));
}

#[test]
fn a_reply_that_is_late_by_far_is_a_reason_to_ask() {
    let mut meter = meter();
    for n in 1..=9 {
        meter.record(&slice(100));
        meter.read(Duration::from_millis(n), after(n, 50 * n));
    }
    meter.record(&slice(100));
    assert!(!meter.wants_reading());
    meter.record(&Measured { excess: Some(Duration::from_millis(300)), ..slice(100) });
    assert!(meter.wants_reading());
    // A large value was freed.
    let correction = meter.read(Duration::from_secs(1), after(11, 50 * 10 + 300_000));
    assert!(correction > 0.29, "{correction}");
    assert!(meter.per_unit().expect("a cost") < 1e-6, "one outlier does not change COUNT");
}

/// A server in virtual time, and a network before it.
#[derive(Debug, Clone, Copy)]
struct Path {
    per_unit: f64,
    overhead: f64,
    round_trip: Duration,
    /// The largest delay of a reply.
    jitter: Duration,
    by_clock: bool,
    /// Share of the main thread that clients use before the first slice, 0–1.
    clients: f64,
    /// What clients send and use from the first slice on, by what they did before.
    clients_later: f64,
}

/// Commands of clients in each second before the first slice.
const COMMANDS: f64 = 500.0;

/// Runs slices at this CPU limit for `time`. Returns the share of the main thread that they took, queries included.
fn used(path: Path, max_cpu: f64, max_slice: Duration, time: Duration) -> f64 {
    let mut limits = Limits::quarter();
    (limits.max_cpu, limits.max_slice) = (max_cpu, max_slice);
    let clients = Clients::new(path.clients, 1.0, COMMANDS as u64);
    let mut meter = CostMeter::new(1e-6, Some(clients), false);
    let mut pace = Pace::new(limits).starting_at(OVERHEAD, 1e-6);
    let (mut now, mut cpu, mut scan, mut calls, mut late) = (Duration::ZERO, 0.0, 0.0, 0, 0u32);
    let mut own = 0;
    let seconds = Duration::from_secs_f64;
    meter.read(now, ScanStatistics { calls, scan: now, commands: 0, cpu: Some(now) });
    while now < time {
        let count = match pace.next(now) {
            Decision::Wait(due) => {
                now = due;
                continue;
            }
            Decision::Go(count) => count,
        };
        let (costs, started) = (path.per_unit * f64::from(count), now);
        late = late.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let jitter = path.jitter.mul_f64(f64::from(late >> 16) / 65_536.0);
        now += path.round_trip + jitter + seconds(costs + path.overhead);
        (cpu, scan, calls, own) = (cpu + costs + path.overhead, scan + costs, calls + 1, own + 6);
        let measured = Measured {
            count,
            reclaimed: 0,
            scan: path.by_clock.then_some(seconds(costs)),
            excess: Some(jitter + seconds(costs + path.overhead)),
            commands: 6,
        };
        let cost = meter.record(&measured);
        pace.begin(started, cost);
        pace.finish(started, 0.0, meter.pause(cost), count, u64::from(count), 0);
        if meter.wants_reading() {
            now += path.round_trip;
            cpu += PER_QUERY;
            meter.record_commands(2);
            own += 2;
            let later = now.as_secs_f64() * path.clients_later;
            let (commands, all) = (own + (COMMANDS * later) as u64, cpu + path.clients * later);
            let reading = ScanStatistics { calls, scan: seconds(scan), commands, cpu: Some(seconds(all)) };
            let correction = meter.read(now, reading);
            pace.settle(now, correction + meter.record_query().as_secs_f64());
        }
    }
    cpu / now.as_secs_f64()
}

fn paths() -> impl Strategy<Value = Path> {
    // At less for each unit the largest COUNT would be too short a slice for the longest path.
    // Beside clients that use more than the slices nothing can be calibrated. They may fall silent, or send more.
    let clients = prop_oneof![(0.0f64..0.045, Just(0.0)), (0.0f64..0.02, Just(1.0)), (0.0f64..0.01, Just(1.5))];
    (0.5f64..3.0, 8.0f64..90.0, 20u64..45_000, 0u64..3_000, any::<bool>(), clients).prop_map(
        |(per_unit, overhead, round_trip, jitter, by_clock, (clients, clients_later))| Path {
            per_unit: per_unit * 1e-6,
            overhead: overhead * 1e-6,
            round_trip: Duration::from_micros(round_trip),
            jitter: Duration::from_micros(jitter),
            by_clock,
            clients,
            clients_later,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn over_any_distance_the_cpu_limit_is_kept_and_used_where_one_connection_can(
        path in paths(), limit in prop::sample::select(&[0.05, 0.25, 0.5][..]),
    ) {
        // A pause limit with which one connection can use the CPU limit over this path.
        let needed = (path.round_trip + path.jitter).mul_f64(limit / (1.0 - limit) * 2.5);
        let max_slice = needed.max(Duration::from_micros(200));
        let used = used(path, limit, max_slice, Duration::from_secs(4));
        prop_assert!(used < limit * 1.2 && used > limit * 0.8, "{used} of {limit}");
    }
}
