//! For bounds in seconds: how long the machine kept everybody waiting meanwhile.

use std::{
    sync::mpsc::{self, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long the watching thread asks to sleep.
const NAP: Duration = Duration::from_millis(10);
/// How much later it wakes up on a machine that has nothing else to do, timers being what they are.
const USUAL: Duration = Duration::from_millis(5);

/// Watches how late a thread is woken that asks for next to nothing. What that adds up to is the machine's, not keysweep's: a test
/// may add it to its bound, which is the plain one wherever nothing stalls.
pub struct Stalls {
    end: Sender<()>,
    watch: JoinHandle<Duration>,
}

impl Stalls {
    /// Begins to watch.
    pub fn watch() -> Self {
        let (end, ended) = mpsc::channel::<()>();
        let watch = thread::spawn(move || {
            let mut lost = Duration::ZERO;
            loop {
                let begun = Instant::now();
                if ended.recv_timeout(NAP) != Err(RecvTimeoutError::Timeout) {
                    return lost;
                }
                lost += begun.elapsed().saturating_sub(NAP + USUAL);
            }
        });
        Self { end, watch }
    }

    /// Ends, and says how long the machine has stalled since the beginning.
    pub fn end(self) -> Duration {
        // Dropping it ends the thread.
        drop(self.end);
        self.watch.join().expect("the thread only waits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_never_more_than_the_time_that_has_passed() {
        let begun = Instant::now();
        let stalls = Stalls::watch();
        // Not a wait for anything: the time that is watched.
        thread::sleep(Duration::from_millis(50));
        assert!(stalls.end() <= begun.elapsed());
    }
}
