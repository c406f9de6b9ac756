//! The representation of an instance: what the API shows of it, and what it accepts to register or change one.

use std::collections::BTreeMap;

use jiff::Timestamp;
use keysweep_engine::{Mode, SentinelTls};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::activity::ActivityView;
use crate::{
    instances::Connection,
    model::{Instance, InstanceStats, Labels, Stored, exact_in_json},
};

/// An instance. Its password is never shown.
#[derive(Debug, Serialize, ToSchema)]
pub struct InstanceView {
    pub(super) id: String,
    pub(super) project_id: String,
    pub(super) name: String,
    /// Without user and password.
    pub(super) url: String,
    /// ACL user; null: the default user.
    pub(super) username: Option<String>,
    pub(super) has_password: bool,
    /// How the nodes are reached, apart from the URL.
    pub(super) connection: ConnectionView,
    /// Pace of manual scans: gentle, normal, fast or max.
    pub(super) pace: String,
    /// Whether scans turn `lazyfree-lazy-expire` on while they run.
    pub(super) manage_lazyfree: bool,
    /// Maintenance window, as `02:00-05:00 Europe/Paris`; null: any time.
    pub(super) window: Option<String>,
    /// Whether the window applies to manual scans as well.
    pub(super) window_binds_manual: bool,
    /// Labels, as an object from names to values.
    pub(super) labels: BTreeMap<String, String>,
    /// How the service estimates the stale keys in the background: off, replica or primary.
    pub(super) sampling: &'static str,
    /// Whether the instance accepts no new tasks.
    pub(super) paused: bool,
    /// Stats of the last successful poll.
    pub(super) stats: Option<StatsView>,
    /// Why the last poll failed, or why the server cannot be scanned; null if neither.
    pub(super) unreachable: Option<String>,
    /// Stored settings that this version cannot read, a sentence each; tasks that depend on one fail.
    pub(super) problems: Vec<String>,
    pub(super) created_at: Timestamp,
    /// What is going on; only in a list with `activity=true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) activity: Option<ActivityView>,
}

/// How an instance's nodes are reached, apart from its URL. Secrets and certificates are shown only as present or absent.
#[derive(Debug, Serialize, ToSchema)]
pub struct ConnectionView {
    /// User on the Sentinels.
    pub(super) sentinel_username: Option<String>,
    pub(super) has_sentinel_password: bool,
    /// Whether CA certificates replace the system's.
    pub(super) has_ca: bool,
    /// Whether there is a client certificate (mTLS).
    pub(super) has_certificate: bool,
    pub(super) has_key: bool,
    /// Name that the servers' certificates must carry; null: the host name.
    pub(super) server_name: Option<String>,
    /// Addresses at which nodes are reached that announce others.
    pub(super) address_map: Option<String>,
    /// Whether connections to the Sentinels are encrypted where that differs from the data nodes, as the URL has it: on or
    /// off; null: it does not differ, or there are no Sentinels.
    pub(super) sentinel_tls: Option<&'static str>,
}

impl From<&Instance> for ConnectionView {
    fn from(instance: &Instance) -> Self {
        Self {
            sentinel_username: instance.sentinel_username.clone(),
            has_sentinel_password: instance.sentinel_password.is_some(),
            has_ca: instance.ca_pem.is_some(),
            has_certificate: instance.cert_pem.is_some(),
            has_key: instance.client_key.is_some(),
            server_name: instance.server_name.clone(),
            address_map: instance.address_map.as_ref().map(Stored::to_string),
            sentinel_tls: match instance.url.value().map(|target| &target.mode) {
                Ok(Mode::Sentinel { tls: SentinelTls::On(_), .. }) => Some("on"),
                Ok(Mode::Sentinel { tls: SentinelTls::Off, .. }) => Some("off"),
                _ => None,
            },
        }
    }
}

/// Instance stats: what the last poll returned.
#[derive(Debug, Serialize, ToSchema)]
pub struct StatsView {
    /// redis or valkey; dragonfly, kvrocks, garnet and other: a server that cannot be scanned.
    pub(super) engine: String,
    pub(super) engine_version: String,
    /// standalone, sentinel or cluster.
    pub(super) mode: String,
    /// Keys of the database that the URL names, or of all; as are `keys_with_ttl` and `stale_keys`. Null, as other numbers, if the
    /// servers report an absurd one, above 2^53.
    pub(super) keys: Option<u64>,
    pub(super) keys_with_ttl: Option<u64>,
    /// Estimated stale keys, by the servers' own running average, which lags behind by minutes; null if the servers do not
    /// report it.
    pub(super) stale_keys: Option<u64>,
    /// Bytes.
    pub(super) used_memory: Option<u64>,
    /// Bytes; 0: no limit.
    pub(super) max_memory: Option<u64>,
    /// The primaries, as `host:port`.
    pub(super) primaries: Vec<String>,
    pub(super) seen_at: Timestamp,
}

/// The instances of a project.
#[derive(ToSchema)]
#[allow(dead_code, reason = "documents what `InstancesBody` writes part by part")]
pub struct InstancesView {
    pub(super) instances: Vec<InstanceView>,
}

/// Pace of manual scans.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "documents the texts of `Preset`")]
enum Pace {
    Gentle,
    Normal,
    Fast,
    Max,
}

/// How stale keys are estimated in the background.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[allow(dead_code, reason = "documents the texts of `Sampling`")]
enum Sampling {
    Off,
    Replica,
    Primary,
}

/// An instance to register.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewInstanceBody {
    /// Unique in the project; 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    pub(super) name: String,
    /// `redis://host:port` or `redis://user:password@host:port`; the password is stored encrypted.
    #[schema(min_length = 1)]
    pub(super) url: String,
    /// How the nodes are reached, apart from the URL.
    pub(super) connection: Option<ConnectionBody>,
    /// Pace of manual scans: gentle, normal, fast or max [default: normal].
    #[schema(value_type = Option<Pace>)]
    pub(super) pace: Option<String>,
    /// Whether scans turn `lazyfree-lazy-expire` on while they run [default: false].
    pub(super) manage_lazyfree: Option<bool>,
    /// Maintenance window of scheduled scans, as `02:00-05:00 Europe/Paris` [default: any time].
    pub(super) window: Option<String>,
    /// Whether the window applies to manual scans as well [default: false].
    pub(super) window_binds_manual: Option<bool>,
    /// Labels, as an object from names to values: at most 32, of letters, digits, `-`, `_`, `.` and in names `/`, 63 characters
    /// each.
    pub(super) labels: Option<BTreeMap<String, String>>,
    /// How the service estimates the stale keys in the background: off; replica: on a replica, where nothing is reclaimed;
    /// primary: without a replica by samples of the primary, which reclaim the stale keys of the sample [default: replica].
    #[schema(value_type = Option<Sampling>)]
    pub(super) sampling: Option<String>,
}

/// Changes of an instance; fields that are left out keep their values.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceChangeBody {
    /// Unique in the project; 1 to 64 characters.
    #[schema(min_length = 1, max_length = 64)]
    pub(super) name: Option<String>,
    /// A new URL replaces user, password and connection; those that the request does not give are removed.
    #[schema(min_length = 1)]
    pub(super) url: Option<String>,
    /// How the nodes are reached, apart from the URL; only together with `url`.
    pub(super) connection: Option<ConnectionBody>,
    /// Pace of manual scans: gentle, normal, fast or max.
    #[schema(value_type = Option<Pace>)]
    pub(super) pace: Option<String>,
    /// Whether scans turn `lazyfree-lazy-expire` on while they run.
    pub(super) manage_lazyfree: Option<bool>,
    /// Maintenance window of scheduled scans, as `02:00-05:00 Europe/Paris`; empty: any time.
    pub(super) window: Option<String>,
    /// Whether the window applies to manual scans as well.
    pub(super) window_binds_manual: Option<bool>,
    /// Labels, as an object from names to values; they replace all earlier ones.
    pub(super) labels: Option<BTreeMap<String, String>>,
    /// How the service estimates the stale keys in the background: off, replica or primary.
    #[schema(value_type = Option<Sampling>)]
    pub(super) sampling: Option<String>,
}

/// How an instance's nodes are reached, apart from its URL. Secrets are stored encrypted and never shown.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConnectionBody {
    /// User on the Sentinels.
    pub(super) sentinel_username: Option<String>,
    /// Password on the Sentinels.
    pub(super) sentinel_password: Option<String>,
    /// CA certificates to verify the servers with instead of the system's, PEM.
    pub(super) ca: Option<String>,
    /// Client certificate (mTLS), PEM.
    pub(super) certificate: Option<String>,
    /// Private key of the client certificate, PEM.
    pub(super) key: Option<String>,
    /// Name that the servers' certificates must carry [default: the host name].
    pub(super) server_name: Option<String>,
    /// Addresses at which nodes are reached that announce others: `host:port=host:port` or `host=host`, separated by commas,
    /// IPv6 addresses in brackets.
    pub(super) address_map: Option<String>,
    /// Whether connections to the Sentinels are encrypted: on, off, or same as those to the data nodes [default: as
    /// `?sentinel_tls=` in the URL says, else same].
    pub(super) sentinel_tls: Option<String>,
}

impl From<ConnectionBody> for Connection {
    fn from(body: ConnectionBody) -> Self {
        Self {
            sentinel_username: body.sentinel_username,
            sentinel_password: body.sentinel_password.map(Into::into),
            ca: body.ca,
            certificate: body.certificate,
            key: body.key.map(Into::into),
            server_name: body.server_name,
            address_map: body.address_map,
            sentinel_tls: body.sentinel_tls,
        }
    }
}

/// The result of polling a server.
#[derive(Debug, Serialize, ToSchema)]
pub struct TestView {
    /// Whether the server answered and can be scanned.
    pub(super) ok: bool,
    /// Stats of the server; null if it did not answer or cannot be scanned.
    pub(super) stats: Option<StatsView>,
    /// Why the server did not answer or cannot be scanned.
    pub(super) message: Option<String>,
}

impl From<&InstanceStats> for StatsView {
    fn from(stats: &InstanceStats) -> Self {
        Self {
            engine: stats.engine.clone(),
            engine_version: stats.engine_version.clone(),
            mode: stats.mode().to_owned(),
            keys: exact_in_json(stats.keys),
            keys_with_ttl: exact_in_json(stats.keys_with_ttl),
            stale_keys: stats.stale_keys.and_then(exact_in_json),
            used_memory: exact_in_json(stats.used_memory),
            max_memory: exact_in_json(stats.max_memory),
            primaries: stats.primaries.iter().map(ToString::to_string).collect(),
            seen_at: stats.seen_at,
        }
    }
}

impl From<&Instance> for InstanceView {
    fn from(instance: &Instance) -> Self {
        Self {
            id: instance.id.clone(),
            project_id: instance.project_id.clone(),
            name: instance.name.clone(),
            url: instance.url.to_string(),
            username: instance.username.clone(),
            has_password: instance.password.is_some(),
            connection: ConnectionView::from(instance),
            pace: instance.pace.to_string(),
            manage_lazyfree: instance.manage_lazyfree,
            window: instance.window.as_ref().map(Stored::to_string),
            window_binds_manual: instance.window_binds_manual,
            labels: instance.labels.value().map_or_else(|_| BTreeMap::new(), |labels: &Labels| labels.as_map().clone()),
            sampling: instance.sampling.as_str(),
            paused: instance.paused,
            stats: instance.stats.as_ref().map(StatsView::from),
            unreachable: instance.unreachable.as_ref().map(|failure| failure.cause.clone()),
            problems: instance.problems(),
            created_at: instance.created_at,
            activity: None,
        }
    }
}
