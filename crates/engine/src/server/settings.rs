//! Settings of a server that decide what a slice does: those with which SCAN hides expired keys and deletes none of them, and
//! those that limit its reply.

use super::check::{Check, Verdict};
use crate::link::{Info, Link, LinkError, Pipeline, Replies};

/// Redis since 8.2: with `no`, commands in a transaction delete no expired key.
const NESTED_EXPIRY: &str = "lazyexpire-nested-arbitrary-keys";
/// Valkey since 8.1: with `yes`, the server deletes no expired key at all.
const IMPORT_MODE: &str = "import-mode";

/// A setting, as far as the server reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// `yes`.
    On,
    /// `no`.
    Off,
    /// The server does not report it, and may have it.
    Unread,
    /// This version has no such setting.
    Absent,
}

/// The settings that decide whether a slice deletes expired keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ExpirySettings {
    /// Whether transactions delete expired keys.
    pub nested_expiry: Setting,
    /// Whether the server is in import mode.
    pub import_mode: Setting,
}

impl ExpirySettings {
    /// Reads the settings. `info`: the server's INFO reply; without a version no setting counts as absent.
    pub fn read(link: &mut Link, info: &Info) -> Result<Self, LinkError> {
        let mut pipeline = Pipeline::default();
        Self::add(&mut pipeline);
        Self::take(&mut link.ask(&pipeline)?, info)
    }

    /// Adds the commands that ask for the settings.
    pub fn add(pipeline: &mut Pipeline) {
        pipeline.add_settings(&[NESTED_EXPIRY, IMPORT_MODE]);
    }

    /// Takes the replies.
    pub fn take(replies: &mut Replies, info: &Info) -> Result<Self, LinkError> {
        let may_have = |is_since: bool| is_since || info.engine_version().is_none();
        let nested_expiry = replies.setting()?;
        let import_mode = replies.setting()?;
        Ok(Self {
            nested_expiry: setting(nested_expiry, may_have(info.is_since((u32::MAX, 0), Some((8, 2))))),
            import_mode: setting(import_mode, may_have(info.is_since((8, 1), None))),
        })
    }

    /// Whether the server has a setting that decides this and that it does not report.
    pub fn are_unread(self) -> bool {
        [self.nested_expiry, self.import_mode].contains(&Setting::Unread)
    }

    /// Whether the server reports its import mode.
    pub fn reports_import_mode(self) -> bool {
        matches!(self.import_mode, Setting::On | Setting::Off)
    }

    /// Returns the check of the settings: a server in import mode is refused.
    pub fn check(self) -> Check {
        let name = "expiry";
        match self {
            Self { import_mode: Setting::On, .. } => Check::with_remedy(
                Verdict::Refused,
                name,
                format!("the server deletes no expired key ({IMPORT_MODE} yes)"),
                "scan when the import is over (import-mode no)",
            ),
            Self { nested_expiry: Setting::Off, .. } => Check::with_remedy(
                Verdict::Warning,
                name,
                format!(
                    "transactions delete no expired key ({NESTED_EXPIRY} no), so that slices run without one and the count is not exact"
                ),
                "for an exact count, CONFIG SET lazyexpire-nested-arbitrary-keys yes",
            ),
            _ if self.are_unread() => {
                Check::ok(name, "CONFIG is refused, so it is unknown whether a setting keeps expired keys")
            }
            _ => Check::ok(name, "no setting keeps expired keys"),
        }
    }
}

/// Adds the command that asks for the import mode.
pub(super) fn add_import_mode(pipeline: &mut Pipeline) {
    pipeline.add_settings(&[IMPORT_MODE]);
}

/// Takes the reply: whether the server is in import mode, as far as it reports that.
pub(super) fn take_import_mode(replies: &mut Replies) -> Result<bool, LinkError> {
    Ok(setting(replies.setting()?, true) == Setting::On)
}

fn setting(value: Option<String>, may_exist: bool) -> Setting {
    match value.as_deref() {
        _ if !may_exist => Setting::Absent,
        Some("yes") => Setting::On,
        Some("no") => Setting::Off,
        _ => Setting::Unread,
    }
}

/// Returns the values of settings, in one round trip; `None` where CONFIG is refused or the setting unknown.
pub(crate) fn config<const N: usize>(link: &mut Link, names: [&str; N]) -> Result<[Option<String>; N], LinkError> {
    let mut pipeline = Pipeline::default();
    pipeline.add_settings(&names);
    let mut replies = link.ask(&pipeline)?;
    let mut values = [const { None }; N];
    for value in &mut values {
        *value = replies.setting()?;
    }
    Ok(values)
}

/// The limit of the replies that a client may leave unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReplyLimit {
    /// The settings that limit it, with their values.
    Set(String),
    /// There is none.
    None,
    /// CONFIG is refused.
    Unread,
}

/// Returns the limit of the replies, above which the server closes the connection.
pub(crate) fn reply_limit(link: &mut Link) -> Result<ReplyLimit, LinkError> {
    let mut pipeline = Pipeline::default();
    pipeline.add_settings(&["client-output-buffer-limit", "maxmemory-clients"]);
    let mut replies = link.ask(&pipeline)?;
    // normal HARD SOFT SECONDS replica …
    let (buffers, memory) = (replies.setting()?, replies.setting()?);
    if buffers.is_none() && memory.is_none() {
        return Ok(ReplyLimit::Unread);
    }
    let normal = buffers.as_deref().and_then(normal_limit);
    let normal = normal.map(|limit| format!("client-output-buffer-limit normal {limit}"));
    let memory = memory.filter(|limit| limit != "0").map(|limit| format!("maxmemory-clients {limit}"));
    let limits: Vec<String> = normal.into_iter().chain(memory).collect();
    Ok(if limits.is_empty() { ReplyLimit::None } else { ReplyLimit::Set(limits.join(", ")) })
}

/// Returns the limits for plain clients; `None`: they have none.
fn normal_limit(buffers: &str) -> Option<String> {
    let words: Vec<&str> = buffers.split_whitespace().collect();
    let class = words.chunks_exact(4).find(|class| class[0] == "normal")?;
    (class[1] != "0" || class[2] != "0").then(|| class[1..].join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_limit_for_plain_clients_counts() {
        let others = "slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(normal_limit(&format!("normal 0 0 0 {others}")), None);
        assert_eq!(normal_limit(&format!("normal 40000 0 0 {others}")).as_deref(), Some("40000 0 0"));
    }
}
