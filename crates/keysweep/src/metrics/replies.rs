//! Memory that replies of servers take in this process, read at each scrape.

use std::{fmt, sync::Arc};

use keysweep_engine::link::ReplyMemory;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

/// Reads the memory for replies at each scrape.
#[derive(Debug)]
pub(super) struct Replies(Arc<ReplyMemory>);

impl Replies {
    pub(super) fn new(memory: Arc<ReplyMemory>) -> Self {
        Self(memory)
    }
}

impl Collector for Replies {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (name, help, bytes) in [
            ("reply_memory_used", "Memory that replies of servers take in this process", self.0.taken()),
            ("reply_memory_max", "Memory that replies of servers may take in this process", self.0.limit()),
        ] {
            let of = encoder.encode_descriptor(name, help, Some(&Unit::Bytes), MetricType::Gauge)?;
            ConstGauge::new(bytes as f64).encode(of)?;
        }
        let help = "Replies of servers that found no free memory for replies";
        let of = encoder.encode_descriptor("reply_memory_refusals", help, None, MetricType::Counter)?;
        ConstCounter::new(self.0.refused()).encode(of)
    }
}
