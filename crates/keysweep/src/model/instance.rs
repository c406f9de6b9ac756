//! Instances: the servers, replication groups and clusters that are scanned.

use std::fmt;

use jiff::Timestamp;
use keysweep_engine::{Address, AddressMap, Preset, Target};

use super::{InstanceStats, Label, Labels, PollFailure, Sampling, ScanType, Sealed, Stored, Window};

/// A server, replication group or cluster that is scanned as one.
///
/// Secrets are in fields of their own, encrypted; `url` never carries one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// 32 hexadecimal digits, or a UUID as the caller gave it.
    pub id: String,
    /// Id of the project that owns the instance.
    pub project_id: String,
    /// Unique in its project.
    pub name: String,
    /// Where its nodes are, without user and password.
    pub url: Stored<Target>,
    /// User name on the data nodes (ACL); `None`: the default user.
    pub username: Option<String>,
    /// Password on the data nodes.
    pub password: Option<Sealed>,
    /// User name on the Sentinels.
    pub sentinel_username: Option<String>,
    /// Password on the Sentinels.
    pub sentinel_password: Option<Sealed>,
    /// CA certificates to verify the servers with, PEM; `None`: the system's.
    pub ca_pem: Option<String>,
    /// Client certificate (mTLS), PEM.
    pub cert_pem: Option<String>,
    /// Key of the client certificate, PEM, encrypted.
    pub client_key: Option<Sealed>,
    /// Name that the servers' certificates must carry; `None`: the host's.
    pub server_name: Option<String>,
    /// `announced=dialled` pairs, separated by commas; `None`: nodes are dialled where they announce.
    pub address_map: Option<Stored<AddressMap>>,
    /// Pace of its scans.
    pub pace: Stored<Preset>,
    /// Maintenance window, as `02:00-05:00 Europe/Paris`; `None`: any time.
    pub window: Option<Stored<Window>>,
    /// Whether the window binds manual scans, too.
    pub window_binds_manual: bool,
    /// Whether scans may turn `lazyfree-lazy-expire` on while they run.
    pub manage_lazyfree: bool,
    /// Labels by which operators select instances.
    pub labels: Stored<Labels>,
    /// How its stale keys are estimated in the background.
    pub sampling: Sampling,
    /// Whether the instance accepts no new task.
    pub paused: bool,
    /// What the last successful poll returned.
    pub stats: Option<InstanceStats>,
    /// Why the stored stats cannot be read, where they cannot; the next poll replaces them.
    pub stats_error: Option<String>,
    /// Why the last poll failed; `None`: it succeeded, or there was none yet.
    pub unreachable: Option<PollFailure>,
    /// When the instance was registered.
    pub created_at: Timestamp,
}

/// A stored field of an instance that this version cannot read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadableField {
    /// Name of the field, as the API has it.
    pub field: &'static str,
    /// Why the field cannot be read, with its value.
    pub cause: String,
}

impl fmt::Display for UnreadableField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remedy = if self.field == "stats" { "the next poll replaces them" } else { "set it again" };
        write!(f, "the stored {} cannot be read: {}; {remedy}", self.field, self.cause)
    }
}

impl Instance {
    /// Returns an instance with the fields that every instance has: pace normal, scannable at any time.
    pub fn new(id: String, project_id: String, name: String, url: String, created_at: Timestamp) -> Self {
        Self {
            id,
            project_id,
            name,
            url: Stored::read(url),
            username: None,
            password: None,
            sentinel_username: None,
            sentinel_password: None,
            ca_pem: None,
            cert_pem: None,
            client_key: None,
            server_name: None,
            address_map: None,
            pace: Preset::Normal.into(),
            window: None,
            window_binds_manual: false,
            manage_lazyfree: false,
            labels: Labels::default().into(),
            sampling: Sampling::default(),
            paused: false,
            stats: None,
            stats_error: None,
            unreachable: None,
            created_at,
        }
    }

    /// Returns the nodes that the URL names: one server, Sentinels, or some nodes of a cluster. None where the URL cannot be
    /// read.
    pub fn seeds(&self) -> &[Address] {
        self.url.value().map_or(&[], |target| &target.seeds)
    }

    /// Returns why the server cannot be scanned, a sentence, as far as a poll has found out; `None`: it can be, or it was
    /// never polled.
    pub fn unsupported(&self) -> Option<String> {
        self.stats.as_ref().and_then(InstanceStats::unsupported)
    }

    /// Returns whether the maintenance window applies to tasks of this kind.
    pub fn is_bound_by_window(&self, scan_type: ScanType) -> bool {
        self.window.is_some() && (scan_type == ScanType::Auto || self.window_binds_manual)
    }

    /// Returns whether the instance has all of these labels.
    pub fn has_labels(&self, wanted: &[Label]) -> bool {
        wanted.is_empty() || self.labels.value().is_ok_and(|labels| labels.have(wanted))
    }

    /// Returns every stored field that cannot be read, in the order of declaration.
    pub fn unreadable_fields(&self) -> Vec<UnreadableField> {
        let map = self.address_map.as_ref();
        let window = self.window.as_ref();
        let fields = [
            unreadable("url", Some(&self.url)),
            unreadable("address_map", map),
            unreadable("pace", Some(&self.pace)),
            unreadable("window", window),
            unreadable("labels", Some(&self.labels)),
            self.stats_error.clone().map(|cause| UnreadableField { field: "stats", cause }),
        ];
        fields.into_iter().flatten().collect()
    }

    /// Returns the same as sentences, for lists.
    pub fn problems(&self) -> Vec<String> {
        self.unreadable_fields().iter().map(ToString::to_string).collect()
    }

    /// Returns the first unreadable field that a task of this kind depends on. Such a task must not start: a default in
    /// place of the field would scan faster, elsewhere or at another time than the operator asked for.
    pub fn blocking_field(&self, scan_type: ScanType) -> Option<UnreadableField> {
        self.unreadable_fields().into_iter().find(|unreadable| match unreadable.field {
            "window" => self.is_bound_by_window(scan_type),
            "labels" | "stats" => false,
            _ => true,
        })
    }
}

fn unreadable<T>(field: &'static str, stored: Option<&Stored<T>>) -> Option<UnreadableField> {
    let cause = stored?.value().err()?;
    Some(UnreadableField { field, cause: cause.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> Instance {
        let url = "redis://cache.example".to_owned();
        Instance::new("i".into(), "p".into(), "cache".into(), url, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn an_unreadable_field_is_named_with_its_value() {
        assert_eq!(instance().unreadable_fields(), []);
        let changed = Instance {
            url: Stored::read("cache.example"),
            address_map: Some(Stored::read("a:1=b")),
            pace: Stored::read("gentel"),
            window: Some(Stored::read("02:00-05:00 Mars/Olympus")),
            labels: Stored::read("[]"),
            stats_error: Some("version 9 is not known".into()),
            ..instance()
        };
        let named: Vec<String> = changed.unreadable_fields().iter().map(ToString::to_string).collect();
        let expected = ["url", "address_map", "pace", "window", "labels", "stats"];
        assert_eq!(named.len(), expected.len(), "{named:?}");
        for (sentence, field) in named.iter().zip(expected) {
            assert!(sentence.starts_with(&format!("the stored {field} cannot be read: ")), "{sentence}");
        }
        assert!(named[2].contains("gentel") && named[3].contains("Mars/Olympus"), "{named:?}");
    }

    #[test]
    fn a_field_blocks_the_tasks_that_depend_on_it() {
        let window = Some(Stored::read("02:00-05:00 Mars/Olympus"));
        let mut changed = Instance { window, ..instance() };
        let blocks = |instance: &Instance, scan_type| instance.blocking_field(scan_type).map(|found| found.field);
        assert_eq!(blocks(&changed, ScanType::Auto), Some("window"));
        assert_eq!(blocks(&changed, ScanType::Manual), None, "the window does not bind manual scans");
        changed.window_binds_manual = true;
        assert_eq!(blocks(&changed, ScanType::Manual), Some("window"));
        changed = Instance { pace: Stored::read("gentel"), stats_error: Some("too new".into()), ..instance() };
        assert_eq!(blocks(&changed, ScanType::Manual), Some("pace"));
        changed.pace = Preset::Gentle.into();
        assert_eq!(blocks(&changed, ScanType::Auto), None, "the next poll replaces the stats");
    }
}
