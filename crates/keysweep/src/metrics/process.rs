//! Process metrics from /proc, under the standard names of Prometheus clients.

use procfs::{WithCurrentSystemInfo, process::Process as Kernel};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

/// Reads /proc at each scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Process {
    pub(super) fn register(registry: &mut Registry) {
        registry.sub_registry_with_prefix("process").register_collector(Box::new(Self));
    }
}

struct Stats {
    cpu_seconds: f64,
    resident: u64,
    virtual_size: u64,
    threads: i64,
    open_fds: u64,
    max_fds: Option<u64>,
    started: f64,
}

fn read_stats() -> procfs::ProcResult<Stats> {
    let kernel = Kernel::myself()?;
    let stat = kernel.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    let max_fds = match kernel.limits()?.max_open_files.soft_limit {
        procfs::process::LimitValue::Value(limit) => Some(limit),
        procfs::process::LimitValue::Unlimited => None,
    };
    Ok(Stats {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        resident: stat.rss_bytes().get(),
        virtual_size: stat.vsize,
        threads: stat.num_threads,
        open_fds: kernel.fd_count()? as u64,
        max_fds,
        started: procfs::boot_time_secs()? as f64 + stat.starttime as f64 / ticks,
    })
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        // Without /proc these metrics are absent.
        let Ok(stats) = read_stats() else { return Ok(()) };
        let cpu = ConstCounter::new(stats.cpu_seconds);
        let help = "User and system CPU time";
        cpu.encode(encoder.encode_descriptor("cpu", help, Some(&Unit::Seconds), MetricType::Counter)?)?;
        let gauges = [
            ("resident_memory", "Resident memory", Some(Unit::Bytes), Some(stats.resident as f64)),
            ("virtual_memory", "Virtual memory", Some(Unit::Bytes), Some(stats.virtual_size as f64)),
            ("threads", "Threads", None, Some(stats.threads as f64)),
            ("open_fds", "Open file descriptors", None, Some(stats.open_fds as f64)),
            ("max_fds", "Limit of open file descriptors", None, stats.max_fds.map(|limit| limit as f64)),
            ("start_time", "Start time of the process, Unix seconds", Some(Unit::Seconds), Some(stats.started)),
        ];
        for (name, help, unit, value) in gauges {
            let Some(value) = value else { continue };
            ConstGauge::new(value).encode(encoder.encode_descriptor(
                name,
                help,
                unit.as_ref(),
                MetricType::Gauge,
            )?)?;
        }
        Ok(())
    }
}
