//! Measures stalls of the machine, for tests with bounds in seconds.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// Time that the measuring thread sleeps.
const SLEEP: Duration = Duration::from_millis(10);
/// Delay of a wake-up on an idle machine.
const TIMER_DELAY: Duration = Duration::from_millis(5);

/// Sums the delays of a thread that only sleeps. They are the machine's, not keysweep's: a test may add the sum to its bound, which
/// changes nothing on an idle machine.
pub struct Stalls {
    end: Sender<()>,
    watch: JoinHandle<Duration>,
}

impl Stalls {
    /// Starts to measure.
    pub fn watch() -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let watch = thread::spawn(move || {
            let mut lost = Duration::ZERO;
            loop {
                let begun = Instant::now();
                if ended.recv_timeout(SLEEP) != Err(RecvTimeoutError::Timeout) {
                    return lost;
                }
                lost += begun.elapsed().saturating_sub(SLEEP + TIMER_DELAY);
            }
        });
        Self { end, watch }
    }

    /// Stops, and returns how long the machine has stalled since the start.
    pub fn end(self) -> Duration {
        // The thread ends when the channel closes.
        drop(self.end);
        self.watch.join().expect("the thread only waits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_never_exceed_the_elapsed_time() {
        let begun = Instant::now();
        let stalls = Stalls::watch();
        // The sleep is the measured time, not a wait for a condition.
        thread::sleep(Duration::from_millis(50));
        assert!(stalls.end() <= begun.elapsed());
    }
}
