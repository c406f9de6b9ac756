//! The load of the server's main thread from one sample to the next, and the part of it that the sweep causes.

use std::time::{Duration, Instant};

/// Shortest time between two samples that gives a reliable load.
const MIN_TIME: Duration = Duration::from_millis(500);

/// Load of the main thread.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// CPU of the main thread at the last sample, and the time of that.
    last: Option<(Instant, Duration)>,
    /// What slices have cost since then, seconds.
    spent: f64,
}

impl Load {
    /// Begins at a sample of the CPU; `None`: the server does not report it.
    pub fn starting_at(now: Instant, cpu: Option<Duration>) -> Self {
        Self { last: cpu.map(|cpu| (now, cpu)), spent: 0.0 }
    }

    /// Adds what slices have cost, seconds, or a correction of that.
    pub fn spend(&mut self, seconds: f64) {
        self.spent += seconds;
    }

    /// Records a sample of the CPU. Returns the load since the last one, and the part of it that the sweep has caused, 0–1; `None`: too
    /// little time has passed, or there was no sample.
    pub fn read(&mut self, now: Instant, cpu: Duration) -> Option<(f64, f64)> {
        let (then, before) = self.last.replace((now, cpu))?;
        let elapsed = now.saturating_duration_since(then);
        let own = std::mem::take(&mut self.spent) / elapsed.as_secs_f64();
        let busy = cpu.saturating_sub(before).as_secs_f64() / elapsed.as_secs_f64();
        (elapsed >= MIN_TIME).then_some((busy, own))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_is_that_since_the_last_sample_and_needs_some_time() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut load = Load::starting_at(start, Some(5 * second));
        load.spend(0.25);
        load.spend(-0.05);
        assert_eq!(load.read(start + second, 5 * second + second / 2), Some((0.5, 0.2)));
        load.spend(0.1);
        assert_eq!(load.read(start + second + second / 4, 6 * second), None);
        assert_eq!(load.read(start + 2 * second + second / 4, 6 * second), Some((0.0, 0.0)));
        assert_eq!(Load::default().read(start, second), None);
    }
}
