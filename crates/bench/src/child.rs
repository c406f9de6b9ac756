//! A contestant that is a program: its time, its CPU and its memory as the kernel counts them.

use std::{
    fs::{self, File},
    io::Read as _,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use wait4::Wait4 as _;

/// How often its memory is looked at. The kernel keeps the peak, so only the last look before its end matters, and
/// looking costs microseconds.
const LOOK: Duration = Duration::from_millis(5);

/// What a program did.
pub struct Ended {
    /// What it printed.
    pub stdout: Vec<u8>,
    /// When it was started.
    pub began: Instant,
    /// Seconds from there to its end.
    pub wall: f64,
    /// CPU that it used, seconds.
    pub cpu: f64,
    /// Most memory that it held, bytes; absent where it ended before it was looked at.
    pub peak_rss: Option<u64>,
}

/// Runs a program to its end. Its output is kept only if `keep`, else it goes to the null device.
pub fn run(command: &mut Command, keep: bool) -> Result<Ended> {
    let name = command.get_program().to_string_lossy().into_owned();
    let null = || File::options().write(true).open("/dev/null");
    command.stdin(Stdio::null()).stderr(null()?);
    command.stdout(if keep { Stdio::piped() } else { null()?.into() });
    let began = Instant::now();
    let mut child = command.spawn().with_context(|| format!("{name} cannot be started"))?;
    let (status, over) = (format!("/proc/{}/status", child.id()), AtomicBool::new(false));
    let (ended, peak_rss) = thread::scope(|scope| {
        let looks = scope.spawn(|| {
            let mut peak = None;
            while !over.load(Ordering::Relaxed) {
                thread::sleep(LOOK);
                // wait4 knows a peak too, but counts in what the parent held when it forked.
                peak = fs::read_to_string(&status).ok().as_deref().and_then(high_water).max(peak);
            }
            peak
        });
        let ended = wait(&mut child, began);
        over.store(true, Ordering::Relaxed);
        (ended, looks.join().ok().flatten())
    });
    let (stdout, wall, cpu, success) = ended?;
    ensure!(success, "{name} failed: {}", String::from_utf8_lossy(&stdout));
    Ok(Ended { stdout, began, wall, cpu, peak_rss })
}

fn wait(child: &mut std::process::Child, began: Instant) -> Result<(Vec<u8>, f64, f64, bool)> {
    let mut stdout = Vec::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_end(&mut stdout)?;
    }
    let used = child.wait4().context("waiting for a program")?;
    let wall = began.elapsed().as_secs_f64();
    let cpu = used.rusage.utime + used.rusage.stime;
    Ok((stdout, wall, cpu.as_secs_f64(), used.status.success()))
}

/// `VmHWM` in bytes.
fn high_water(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}
