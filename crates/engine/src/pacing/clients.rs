//! What clients take of the main thread while slices run. Pure.
//!
//! Their load is measured before the first slice, and it may be another one a moment later: a poller falls silent, a batch begins. So it
//! is counted by commands as far as these explain the CPU, and by the time beyond that: the server's own cycle, long commands.

/// The most that one command of clients is taken to cost, seconds: one of a core that has to wake up for it.
const PER_COMMAND: f64 = 100e-6;

/// Load of the clients of one server.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Clients {
    /// Seconds of CPU in each second, whatever commands they send.
    timed: f64,
    /// Seconds of CPU for each command.
    per_command: f64,
}

impl Clients {
    /// Returns the load of clients that have used `cpu` seconds within `elapsed` seconds, and sent so many commands.
    pub fn new(cpu: f64, elapsed: f64, commands: u64) -> Self {
        let commands = commands as f64;
        let per_command = (cpu / commands.max(1.0)).min(PER_COMMAND);
        Self { timed: (cpu - per_command * commands).max(0.0) / elapsed, per_command }
    }

    /// Returns the CPU that they use within `elapsed` seconds in which they send so many commands, seconds.
    pub fn cpu(self, elapsed: f64, commands: u64) -> f64 {
        self.timed * elapsed + self.per_command * commands as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_count_as_far_as_they_explain_the_load_and_the_time_beyond_that() {
        let close = |measured: f64, expected: f64| assert!((measured - expected).abs() < 1e-9, "{measured}");
        // A poller: 500 commands a second of 70 µs each.
        let poller = Clients::new(0.0035, 0.1, 50);
        close(poller.cpu(2.0, 1_000), 0.07);
        close(poller.cpu(2.0, 0), 0.0);
        // The server's own cycle, beside which a client sends a command now and then.
        let cycle = Clients::new(0.01, 0.1, 1);
        close(cycle.cpu(1.0, 0), 0.099);
        close(Clients::new(0.001, 0.1, 0).cpu(1.0, 0), 0.01);
    }
}
