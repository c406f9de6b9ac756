use super::*;
use crate::{
    link::Info,
    server::{CommandTimes, EventLoop, ScanStatistics},
};

const MILLI: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const NO_SCANS: ScanStatistics = ScanStatistics { calls: 0, scan: Duration::ZERO, commands: 0, cpu: None };

/// A server that has counted so many iterations of its event loop and microseconds in them, and calls of GET and DEBUG with theirs.
fn sample(event_loop: Option<(u64, u64)>, get: (u64, u64), debug: (u64, u64)) -> ServerState {
    let event_loop = event_loop
        .map(|(cycles, micros)| format!("eventloop_cycles:{cycles}\r\neventloop_duration_sum:{micros}\r\n"))
        .unwrap_or_default();
    let line = |name: &str, (calls, micros): (u64, u64)| format!("cmdstat_{name}:calls={calls},usec={micros}\r\n");
    let info = Info::read(&format!("{event_loop}{}{}", line("get", get), line("debug", debug)));
    ServerState {
        event_loop: EventLoop::read(&info),
        commands: CommandTimes::read(&info),
        scan: Some(NO_SCANS),
        ..ServerState::default()
    }
}

/// A signal over a path without jitter, on whose server such a sample was taken a second before and again just now.
fn signal(sample: &ServerState, tells_time: bool) -> Signal {
    let mut waits = Waits::default();
    if tells_time {
        run_slices(&mut |sent, answered, clock| assert!(waits.record_slice(sent, answered, clock)), 10, Duration::ZERO);
    }
    Signal::over_distance(Before {
        waits,
        samples: [sample, sample],
        elapsed: SECOND,
        tolerance: MILLI,
        slice: MILLI / 5,
    })
}

/// Runs slices over a path of 20 ms; every fifth of them waits for the server for so long.
fn run_slices(record: &mut dyn FnMut(Instant, Instant, (i64, i64)), slices: u32, wait: Duration) {
    let start = Instant::now();
    for number in 0..slices {
        let sent = start + number * 50 * MILLI;
        let begun = sent + 10 * MILLI + if number % 5 == 0 { wait } else { Duration::ZERO };
        let clock = (begun - start).as_micros() as i64;
        record(sent, begun + 10 * MILLI, (clock, clock));
    }
}

/// Returns the last judgement after such slices.
fn judged(signal: &mut Signal, wait: Duration) -> Option<Duration> {
    let mut last = None;
    run_slices(&mut |sent, answered, clock| last = signal.after_slice(sent, answered, clock).or(last), 20, wait);
    last
}

#[test]
fn a_long_command_stands_out_beside_thousands_of_short_ones() {
    let before = sample(Some((100_000, 3_000_000)), (100_000, 200_000), (0, 0));
    for (debug, expected) in [((4, 200_000), Some(50 * MILLI)), ((1, 50_000), Some(Duration::ZERO))] {
        let mut signal = signal(&before, false);
        // In the mean an iteration takes 100 µs: no longer than a slice.
        let now = sample(Some((102_500, 3_250_000)), (102_500, 205_000), debug);
        let found = signal.after_sample(Instant::now() + SECOND, [&before, &now], Some(0.1));
        assert_eq!(found, expected, "{debug:?} of a second");
    }
}

#[test]
fn commands_that_were_long_before_the_scan_are_no_reason() {
    let before = sample(Some((1, 1)), (1, 1), (0, 0));
    let mut signal = signal(&before, false);
    let counters = signal.counters.as_mut().expect("counters");
    counters.baseline.command = 60 * MILLI;
    let now = sample(Some((2_501, 250_001)), (1, 1), (4, 200_000));
    assert_eq!(signal.after_sample(Instant::now() + SECOND, [&before, &now], None), Some(Duration::ZERO));
}

#[test]
fn a_late_answer_counts_only_where_the_server_may_have_been_busy() {
    let before = sample(Some((1_000, 20_000)), (1_000, 2_000), (0, 0));
    let mut idle = signal(&before, true);
    assert_eq!(judged(&mut idle, 30 * MILLI), Some(Duration::ZERO), "before the first sample");
    let mut busy = idle.clone();
    // A fifth of a second in a thousand iterations, none longer than a slice.
    let now = sample(Some((2_000, 220_000)), (1_500, 3_000), (0, 0));
    busy.after_sample(Instant::now() + SECOND, [&before, &now], Some(0.05));
    assert!(judged(&mut busy, 30 * MILLI) > Some(20 * MILLI));
    // As long, and most of it by slices.
    idle.after_sample(Instant::now() + SECOND, [&before, &now], Some(0.15));
    assert_eq!(judged(&mut idle, 30 * MILLI), Some(Duration::ZERO));
    let mut unknown = signal(&sample(None, (1, 1), (0, 0)), true);
    assert!(judged(&mut unknown, 30 * MILLI) > Some(20 * MILLI), "a server that does not count iterations");
    assert_eq!(judged(&mut unknown, Duration::ZERO), Some(Duration::ZERO));
}

#[test]
fn without_a_clock_and_an_event_loop_it_is_the_round_trip_of_a_ping() {
    assert!(Signal::default().is_ping());
    assert!(signal(&sample(None, (1, 1), (0, 0)), false).is_ping());
    assert!(!signal(&sample(Some((1, 1)), (1, 1), (0, 0)), false).is_ping());
    assert!(!signal(&sample(None, (1, 1), (0, 0)), true).is_ping());
}
