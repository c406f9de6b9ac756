//! The DCS representation of a task, of times and of counters.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{ScanType, Status, Task};

/// A task; `started_at` and `finished_at` are left out until they exist.
#[derive(Debug, Serialize, ToSchema)]
pub struct TaskBody {
    id: String,
    instance_id: String,
    status: Status,
    scan_type: ScanType,
    created_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    finished_at: Option<String>,
}

impl From<&Task> for TaskBody {
    fn from(task: &Task) -> Self {
        Self {
            id: task.id.clone(),
            instance_id: task.instance_id.clone(),
            status: task.status,
            scan_type: task.scan_type,
            created_at: utc_millis(task.created_at),
            started_at: task.started_at.map(utc_millis),
            finished_at: task.finished_at.map(utc_millis),
        }
    }
}

/// Formats a time as this API does everywhere: UTC with exactly three decimals and a Z.
pub fn utc_millis(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}

/// Saturates a counter at 32 bits, which is what the Go SDK reads it into.
pub fn counter(value: u64) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_exactly_three_decimals() {
        for (time, text) in [
            ("2020-06-15T02:21:18.669Z", "2020-06-15T02:21:18.669Z"),
            ("2020-06-15T02:21:18Z", "2020-06-15T02:21:18.000Z"),
            ("2020-06-15T02:21:18.0059999Z", "2020-06-15T02:21:18.005Z"),
        ] {
            assert_eq!(utc_millis(time.parse().expect("a time")), text);
        }
    }

    #[test]
    fn counters_saturate_at_32_bits() {
        assert_eq!((counter(7), counter(u64::MAX)), (7, i32::MAX));
    }
}
