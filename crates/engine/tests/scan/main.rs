//! Tests of scans on real servers: what they count, what they cost, and what interrupts them.

mod backward;
mod calls;
mod churn;
#[path = "../common/mod.rs"]
mod common;
mod cpu_limit;
mod distance;
mod distant_guard;
mod exactness;
mod false_success;
mod faults;
mod opaque_proxy;
mod pipeline;
mod pressure;
mod progress;
mod remaining;
mod throttling;
mod unavailable;
mod waiting;
