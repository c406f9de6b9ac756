//! The process as its kernel sees it, under the names that every Prometheus client gives it.

use procfs::{WithCurrentSystemInfo, process::Process as Kernel};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::{Registry, Unit},
};

/// Asked anew at each scrape.
#[derive(Debug)]
pub(super) struct Process;

impl Process {
    pub(super) fn register(registry: &mut Registry) {
        registry.sub_registry_with_prefix("process").register_collector(Box::new(Self));
    }
}

struct Figures {
    cpu_seconds: f64,
    resident: u64,
    virtual_size: u64,
    threads: i64,
    open_fds: u64,
    max_fds: Option<u64>,
    started: f64,
}

fn ask() -> procfs::ProcResult<Figures> {
    let kernel = Kernel::myself()?;
    let stat = kernel.stat()?;
    let ticks = procfs::ticks_per_second() as f64;
    let max_fds = match kernel.limits()?.max_open_files.soft_limit {
        procfs::process::LimitValue::Value(limit) => Some(limit),
        procfs::process::LimitValue::Unlimited => None,
    };
    Ok(Figures {
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
        // Where there is no /proc, there are no such metrics.
        let Ok(figures) = ask() else { return Ok(()) };
        let cpu = ConstCounter::new(figures.cpu_seconds);
        let help = "Processor time used, user and system";
        cpu.encode(encoder.encode_descriptor("cpu", help, Some(&Unit::Seconds), MetricType::Counter)?)?;
        let gauges = [
            ("resident_memory", "Resident memory", Some(Unit::Bytes), Some(figures.resident as f64)),
            ("virtual_memory", "Virtual memory", Some(Unit::Bytes), Some(figures.virtual_size as f64)),
            ("threads", "Threads", None, Some(figures.threads as f64)),
            ("open_fds", "Open file descriptors", None, Some(figures.open_fds as f64)),
            ("max_fds", "Most file descriptors that may be open", None, figures.max_fds.map(|limit| limit as f64)),
            ("start_time", "When it started, since the epoch", Some(Unit::Seconds), Some(figures.started)),
        ];
        for (name, help, unit, figure) in gauges {
            let Some(figure) = figure else { continue };
            ConstGauge::new(figure).encode(encoder.encode_descriptor(
                name,
                help,
                unit.as_ref(),
                MetricType::Gauge,
            )?)?;
        }
        Ok(())
    }
}
