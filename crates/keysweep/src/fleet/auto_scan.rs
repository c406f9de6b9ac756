//! How instances are swept by themselves: what is kept, and what holds before anybody has said anything.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use super::{Deed, Fleet, FleetError, now};
use crate::model::{AutoScan, Instance};

/// As DCS documents it, for an instance that nobody has configured.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(86_400);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(172_800);
const DEFAULT_SCAN_KEYS_COUNT: u32 = 10;

impl Fleet {
    /// How an instance is swept by itself. `None`: nobody has said yet, so it is not.
    pub async fn auto_scan(&self, instance: &Instance) -> Result<Option<AutoScan>, FleetError> {
        Ok(self.store.auto_scan(&instance.id).await?)
    }

    /// Says how an instance is swept by itself. Returns what is kept.
    pub async fn set_auto_scan(
        &self,
        instance: &Instance,
        config: AutoScan,
        actor: Option<&str>,
    ) -> Result<AutoScan, FleetError> {
        let config = AutoScan { instance_id: instance.id.clone(), updated_at: now(), ..config };
        self.store.set_auto_scan(&config).await?;
        let deed =
            Deed { project_id: Some(&instance.project_id), actor, action: "auto_scan.set", subject: &instance.id };
        let detail = json!({
            "enabled": config.enabled,
            "first_scan_at": config.first_scan_at,
            "interval_seconds": config.interval.as_secs(),
            "timeout_seconds": config.timeout.as_secs(),
            "scan_keys_count": config.scan_keys_count,
        });
        self.record(deed, &detail).await?;
        Ok(config)
    }
}

impl AutoScan {
    /// What holds for an instance that nobody has configured: it is not swept by itself.
    pub fn unset(instance_id: &str) -> Self {
        Self {
            instance_id: instance_id.to_owned(),
            enabled: false,
            first_scan_at: None,
            interval: DEFAULT_INTERVAL,
            timeout: DEFAULT_TIMEOUT,
            scan_keys_count: DEFAULT_SCAN_KEYS_COUNT,
            updated_at: Timestamp::UNIX_EPOCH,
        }
    }
}
