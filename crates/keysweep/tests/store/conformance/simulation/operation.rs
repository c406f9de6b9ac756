//! The operations that a simulation draws from.

use rand::{RngExt, rngs::StdRng};

use super::{INSTANCES, WORKERS};

/// What happens next.
#[derive(Debug, Clone, Copy)]
pub(super) enum Operation {
    Create(usize),
    Cancel(usize),
    /// Moves the clock by this many seconds, sometimes back.
    Advance(i64),
    /// Checks the schedule.
    Schedule,
    /// Changes the schedule: on, off, or other times.
    Configure(usize, bool),
    /// A worker's next action: claim, heartbeat, or finish.
    Step(usize),
    /// The same, but the answer is lost.
    StepUnheard(usize),
    /// The worker's process dies; a new one starts.
    Crash(usize),
    /// The worker shuts down gracefully.
    Stop(usize),
    /// An instance gets a window that is closed now, or is open at all times again.
    Window(usize, bool),
    /// An instance is paused, or resumed.
    Pause(usize, bool),
    /// The store becomes unavailable, or available again.
    Outage,
}

/// Draws the next operation.
pub(super) fn draw(random: &mut StdRng) -> Operation {
    let worker = random.random_range(0..WORKERS);
    let instance = random.random_range(0..INSTANCES);
    match random.random_range(0..100) {
        0..14 => Operation::Create(instance),
        14..18 => Operation::Cancel(instance),
        18..30 => Operation::Advance(random.random_range(1..8)),
        30..33 => Operation::Advance(random.random_range(10..400)),
        33 => Operation::Advance(random.random_range(3_000..30_000)),
        34 => Operation::Advance(-random.random_range(1..120)),
        35..43 => Operation::Schedule,
        43..45 => Operation::Configure(instance, random.random_bool(0.8)),
        45..86 => Operation::Step(worker),
        86..89 => Operation::StepUnheard(worker),
        89..92 => Operation::Crash(worker),
        92..94 => Operation::Stop(worker),
        94 => Operation::Window(instance, random.random_bool(0.5)),
        95 => Operation::Pause(instance, random.random_bool(0.5)),
        _ => Operation::Outage,
    }
}
