//! What a sweep costs on this side: one write for each slice, and no memory for a key.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{self, Read, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use keysweep_engine::{
    Address, BaselineRecord, BaselineRegistry, Change, Credentials, HoldPolicy, Holder, HolderHost, Options, Preset,
    Stop, Target,
    link::{Capabilities, Dialer, Link, LinkError, Plain, Transport},
    sweep_through,
};
use keysweep_harness::{DataSet, Flavor, Names, Server};
use rstest::rstest;

/// Counts the allocations of the one test thread; the tests of this file run in processes of their own (nextest).
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// The only unsafe code: the trait is unsafe. The methods forward and count.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Counts the writes on real connections.
#[derive(Default)]
struct Recorder {
    /// Writes of one whole transaction.
    transactions: AtomicU64,
    /// Writes of a latency probe alone: of PING, or over a distance of TIME.
    pings: AtomicU64,
    /// All other writes: before the first transaction, in all, and since the last transaction.
    before: AtomicU64,
    others: AtomicU64,
    after: AtomicU64,
    connections: AtomicU64,
}

impl Recorder {
    fn record(&self, bytes: &[u8]) {
        let add = |count: &AtomicU64| count.fetch_add(1, Ordering::Relaxed);
        if bytes.starts_with(b"*1\r\n$5\r\nMULTI\r\n") && bytes.ends_with(b"*1\r\n$4\r\nEXEC\r\n") {
            add(&self.transactions);
            self.after.store(0, Ordering::Relaxed);
        } else if bytes == b"*1\r\n$4\r\nPING\r\n" || bytes == b"*1\r\n$4\r\nTIME\r\n" {
            add(&self.pings);
        } else {
            add(&self.others);
            add(&self.after);
            if self.transactions.load(Ordering::Relaxed) == 0 {
                add(&self.before);
            }
        }
    }
}

struct RecordingDialer(Arc<Recorder>);

struct RecordingStream(Box<dyn Transport>, Arc<Recorder>);

impl Dialer for RecordingDialer {
    fn dial(&self, address: &Address, timeout: Duration, stop: &Stop) -> Result<Box<dyn Transport>, LinkError> {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(RecordingStream(Plain.dial(address, timeout, stop)?, Arc::clone(&self.0))))
    }
}

impl Read for RecordingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for RecordingStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.record(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Transport for RecordingStream {}

/// Returns options with slices so long that several cursors do not pay: on a machine that stalls a server next door may be taken for
/// a distant one, to which a sweep opens further connections.
fn over_one_connection() -> Options {
    let mut options = Options::default();
    options.limits.max_slice = Duration::from_millis(300);
    options
}

#[test]
fn a_sweep_is_one_connection_and_one_write_a_slice() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(40_000).stale(10_000).load(&server);
    let target: Target = server.url().parse().expect("a target");
    let recorder = Arc::new(Recorder::default());

    // COUNT should follow the cost of a key, also on a machine whose stalls would be attributed to the server.
    let mut options = over_one_connection();
    options.limits.guard = None;

    let report = sweep_through(&RecordingDialer(Arc::clone(&recorder)), &target, &options, &(), &Stop::new());

    let [transactions, pings, others, connections] =
        [&recorder.transactions, &recorder.pings, &recorder.others, &recorder.connections]
            .map(|count| count.load(Ordering::Relaxed));
    assert_eq!((connections, report.totals.keys_reclaimed), (1, 10_000));
    assert_eq!(transactions, report.totals.slices, "one write for each slice");
    // Beside the slices: the greeting, the checks, the 20 PINGs of the baseline, the sizes after them, and every second 50 PINGs,
    // 40 samples of background saves, one of the state and some of what slices cost.
    let (pings, others) = (pings as f64, others as f64);
    let elapsed = report.totals.elapsed_seconds;
    assert!(pings <= 20.0 + elapsed * 50.0 + 3.0, "{pings} PINGs in {elapsed} s");
    assert!(others <= elapsed * 42.0 + 20.0, "{others} other writes in {elapsed} s");
    assert!(report.totals.slices < 50_000 / 16, "COUNT grows: {} slices for 50,000 keys", report.totals.slices);
}

/// Over a long path each of these round trips takes as long as dozens of slices.
#[rstest]
fn few_round_trips_precede_the_first_slice_and_follow_the_last(
    #[values(Flavor::Redis62, Flavor::Redis70, Flavor::Redis82, Flavor::Valkey81, Flavor::Valkey91)] flavor: Flavor,
) {
    let server = Server::with(flavor).password("secret").start();
    let loaded = DataSet::new().live(20_000).stale(5_000).load(&server);
    let target: Target = server.url().parse().expect("a target");
    let recorder = Arc::new(Recorder::default());
    let dialer = RecordingDialer(Arc::clone(&recorder));
    let report = sweep_through(&dialer, &target, &over_one_connection(), &(), &Stop::new());
    assert_eq!((report.totals.keys_reclaimed, report.totals.exact), (loaded.stale, true), "{report:?}");
    let [before, after] = [&recorder.before, &recorder.after].map(|count| count.load(Ordering::Relaxed));
    // The greeting, ROLE, two for the checks and the rights, and the state after the PINGs for the latency.
    assert_eq!(before, 5, "writes before the first slice, without PINGs");
    // The state, and the sizes.
    assert_eq!(after, 2, "writes after the last slice");
}

/// A program around a holder that only observes.
struct Observer;

impl HolderHost for Observer {
    fn registry(&self) -> &dyn BaselineRegistry {
        self
    }

    fn may_write(&self) -> bool {
        false
    }

    fn scan(&self, address: &Address) {
        panic!("{address} is to be scanned");
    }

    fn is_scanning(&self, _: &Address) -> bool {
        false
    }

    fn changed(&self, change: &Change) {
        panic!("{change:?}");
    }
}

impl BaselineRegistry for Observer {
    fn find(&self, _: &Address) -> Result<Option<BaselineRecord>, String> {
        Ok(None)
    }

    fn unrestored(&self, _: &str) -> Result<Vec<BaselineRecord>, String> {
        Ok(Vec::new())
    }

    fn save(&self, record: &BaselineRecord) -> Result<(), String> {
        panic!("{record:?}");
    }
}

#[test]
fn an_observation_of_a_holder_is_one_write_beside_its_probe() {
    let server = Server::start(Flavor::Valkey91);
    let target: Target = server.url().parse().expect("a target");
    let recorder = Arc::new(Recorder::default());
    let mut holder = Holder::new(HoldPolicy::default());
    let mut round = || {
        let before = [&recorder.others, &recorder.pings].map(|count| count.load(Ordering::Relaxed));
        holder.round(&RecordingDialer(Arc::clone(&recorder)), &target, &Observer, &Stop::new()).expect("a round");
        assert!(holder.statuses()[0].status.setting.is_some(), "it is observed: {holder:?}");
        let after = [&recorder.others, &recorder.pings].map(|count| count.load(Ordering::Relaxed));
        (after[0] - before[0], after[1] - before[1])
    };
    // The greeting and ROLE of the connection that finds the primary, the greeting of the one that stays, and the observation.
    assert_eq!(round(), (4, 20));
    assert_eq!(round(), (3, 20), "without the greeting of the one that stays");
}

#[test]
fn a_slice_allocates_as_much_for_ten_keys_as_for_ten_thousand() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(30_000).names(Names::Binary).live(1_000).load(&server);
    let address = Address::tcp("127.0.0.1", server.port());
    let mut link = Link::open(&Plain, &address, &Credentials::default(), "test", &Stop::new()).expect("a link");
    let mut measure = |count| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        let slice = link.slice(0, count, Capabilities::ALL).expect("a slice");
        (ALLOCATIONS.load(Ordering::Relaxed) - before, slice.returned)
    };
    // The first large reply makes the buffer as large as it may be.
    measure(10_000);
    let ((few_allocations, few), (many_allocations, many)) = (measure(10), measure(10_000));
    assert!(few < 100 && many >= 10_000, "{few} and {many} keys");
    assert_eq!(few_allocations, many_allocations);
}

#[test]
fn a_slice_at_pace_max_is_still_a_slice() {
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(100_000).load(&server);
    let target: Target = server.url().parse().expect("a target");
    let options = Options { limits: Preset::Max.limits(), pace: "max".into(), ..Options::default() };
    let report = sweep_through(&Plain, &target, &options, &(), &Stop::new());
    // Without stale keys a key costs a third of a microsecond: two to three thousand fit into a slice.
    assert!(report.totals.slices > 20, "{} slices for 100,000 keys", report.totals.slices);
}
