//! What `keysweep estimate` is doing, on one line of the terminal until its result is there.

use std::{
    fs::File,
    io::{self, Read},
};

use keysweep_engine::{EstimateMonitor, EstimateStep};

use crate::cli::term;

/// The line. Dropping it clears it.
#[derive(Debug)]
pub struct ProgressLine(term::Status);

impl ProgressLine {
    /// Shows that the target is being connected to.
    pub fn new() -> Self {
        let status = term::Status::new();
        status.draw("connecting");
        Self(status)
    }
}

impl EstimateMonitor for ProgressLine {
    fn step(&self, step: EstimateStep<'_>) {
        self.0.draw(&sentence(step));
    }
}

/// Describes a step in few words: a narrow terminal cuts them off at the end.
fn sentence(step: EstimateStep<'_>) -> String {
    match step {
        EstimateStep::Expiry(time) => format!("measuring how fast keys expire, for {} s", time.as_secs_f64()),
        EstimateStep::Primary { address, of: 1, .. } => format!("estimating {address}"),
        EstimateStep::Primary { address, number, of } => format!("estimating primary {number} of {of}, {address}"),
        EstimateStep::Count { address, fraction } => format!("{:3.0} % counted on {address}", fraction * 100.0),
    }
}

/// A file that shows how much of it is read.
#[derive(Debug)]
pub struct ReadFile {
    file: File,
    name: String,
    /// Size of the file, bytes; 0: unknown, as that of a pipe.
    size: u64,
    read: u64,
    line: ProgressLine,
}

impl ReadFile {
    /// Reads `file`, which is shown as `name`.
    pub fn new(file: File, name: &str) -> Self {
        let size = file.metadata().map_or(0, |found| found.len());
        Self { file, name: name.to_owned(), size, read: 0, line: ProgressLine::new() }
    }
}

impl Read for ReadFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(buffer)?;
        self.read += length as u64;
        let name = &self.name;
        match self.size {
            0 => self.line.0.draw(&format!("reading {name}")),
            size => self.line.0.draw(&format!("{:3} % read of {name}", (self.read * 100 / size).min(100))),
        }
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_step_is_told_with_what_is_left_to_do() {
        let address = "10.0.0.7:6379".parse().expect("an address");
        let address = &address;
        for (step, text) in [
            (EstimateStep::Expiry(Duration::from_secs(2)), "measuring how fast keys expire, for 2 s"),
            (EstimateStep::Primary { address, number: 1, of: 1 }, "estimating 10.0.0.7:6379"),
            (EstimateStep::Primary { address, number: 3, of: 40 }, "estimating primary 3 of 40, 10.0.0.7:6379"),
            (EstimateStep::Count { address, fraction: 0.345 }, " 34 % counted on 10.0.0.7:6379"),
        ] {
            assert_eq!(sentence(step), text);
        }
    }
}
