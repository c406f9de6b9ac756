//! What is worth knowing before a sweep begins: each check comes to a verdict and, where there is something to do about
//! it, a remedy. Nothing here touches a key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::{
    failure::{Failure, Trouble},
    link::{Abilities, Dialer, Info, Link, LinkError, Reply, RoleView},
    look::{Expiry, Look},
    stop::Stop,
    target::{Address, Mode, Target},
    topology::{self, Access, Primary},
};

/// How far clocks may be apart: a fast clock makes living keys expired for good.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(2);
/// Releases a second, at most, while somebody listens to each.
pub(crate) const RELEASES_WHILE_LISTENED_TO: u64 = 10_000;
/// The name of the check for values that block while they are freed.
const FREEING: &str = "freeing";
/// The name of the check that leads to that.
const LISTENERS: &str = "listeners";
/// What one delete takes of the replication stream, bytes: the command, and a key name of the usual length.
const BYTES_A_DELETE: u64 = 80;
/// The share of keys with a TTL that is usually dead at the worst, 0–1.
const USUALLY_DEAD: f64 = 0.3;

/// What a check comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Nothing stands in the way.
    Ok,
    /// The sweep will take its time because of it.
    Slower,
    /// Somebody should know.
    Warning,
    /// The sweep will not begin.
    Refused,
}

impl Check {
    /// Whether this is about large values that are freed in the main thread.
    pub(crate) fn is_of_freeing(&self) -> bool {
        self.name == FREEING
    }

    /// Whether a sweep is slowed down by this because somebody listens to what it releases.
    pub(crate) fn caps_releases(&self) -> bool {
        self.name == LISTENERS && self.verdict == Verdict::Slower
    }
}

impl Verdict {
    /// The word in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Slower => "slower",
            Self::Warning => "warning",
            Self::Refused => "refused",
        }
    }
}

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, in a word or two.
    pub name: String,
    /// What it comes to.
    pub verdict: Verdict,
    /// What was found.
    pub finding: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// Runs all checks on the target's primaries, without releasing anything. `Err`: there is no primary to check.
pub fn check(dialer: &dyn Dialer, target: &Target, stop: &Stop) -> Result<Vec<Check>, Failure> {
    let access = Access { dialer, target, client_name: "keysweep:check", stop };
    let failed = |trouble: Trouble| trouble.into_failure(target.seed());
    let mut checks = Vec::new();
    for primary in topology::primaries(access).map_err(failed)? {
        let mut primary = match primary {
            Ok(primary) => primary,
            // The others are worth checking all the same.
            Err(trouble) if matches!(target.mode, Mode::Cluster) && !stop.is_raised() => {
                let remedy = "wait for its failover, or bring it back";
                checks.push(note(Verdict::Refused, "reach", failed(trouble).message, remedy));
                continue;
            }
            Err(trouble) => return Err(failed(trouble)),
        };
        let found = examine(&mut primary, access).map_err(|error| failed(Trouble::at(&primary.address, error)))?;
        // Of several primaries each line says which one it is about.
        let whose = if matches!(target.mode, Mode::Cluster) { format!("{}: ", primary.address) } else { String::new() };
        let all = [role(&primary, target)].into_iter().chain(found);
        checks.extend(all.map(|check| Check { finding: format!("{whose}{}", check.finding), ..check }));
    }
    Ok(checks)
}

fn role(primary: &Primary, target: &Target) -> Check {
    let address = &primary.address;
    let is_told = primary.role != RoleView::Unknown;
    Check {
        name: "role".into(),
        verdict: if is_told { Verdict::Ok } else { Verdict::Warning },
        finding: match target.mode {
            _ if !is_told => format!("{address} does not tell its role; it is taken for a primary"),
            Mode::Server if address == target.seed() => format!("{address} is a primary"),
            _ => format!("{target} leads to the primary {address}"),
        },
        remedy: None,
    }
}

/// The checks on a primary that is connected to.
pub(crate) fn examine(primary: &mut Primary, access: Access<'_>) -> Result<Vec<Check>, LinkError> {
    let link = &mut primary.link;
    let mut checks = vec![rights(link)?.1, clock(link, &primary.address, &primary.role, access)?];
    let info = link.info(&["server", "clients", "memory", "persistence", "replication", "keyspace", "cluster"])?;
    if matches!(access.target.mode, Mode::Cluster) {
        checks.push(cluster_rights(link, info.as_ref())?);
    }
    let Some(info) = info else {
        let finding = "INFO is refused: sizes are unknown, paused expiry is not noticed, and a lost connection starts the sweep again";
        checks.push(note(Verdict::Warning, "sizes", finding, "grant +info"));
        return Ok(checks);
    };
    checks.push(listeners(link, &info)?);
    checks.push(append_only(link, &info)?);
    checks.push(lazy_free(link)?);
    checks.push(replication(&info, &primary.role));
    checks.push(memory(&info));
    checks.push(state(link)?);
    if info.text("cluster_enabled") == Some("1") && !matches!(access.target.mode, Mode::Cluster) {
        let finding = format!("{} is one node of a cluster; only this node is swept", primary.address);
        checks.push(note(Verdict::Warning, "cluster", finding, "use redis-cluster:// to sweep all of its primaries"));
    }
    Ok(checks)
}

fn ok(name: &str, finding: impl Into<String>) -> Check {
    Check { name: name.into(), verdict: Verdict::Ok, finding: finding.into(), remedy: None }
}

fn note(verdict: Verdict, name: &str, finding: impl Into<String>, remedy: &str) -> Check {
    Check { name: name.into(), verdict, finding: finding.into(), remedy: Some(remedy.into()) }
}

/// Tries what a sweep runs, without releasing a key: rights are checked before a command looks at what it was given, so that
/// SCAN is asked with a cursor that is none.
pub(crate) fn rights(link: &mut Link) -> Result<(Abilities, Check), LinkError> {
    let mut refused = Vec::new();
    let mut note_if = |name: &'static str, is_allowed: bool| {
        if !is_allowed {
            refused.push(name);
        }
        is_allowed
    };
    let scan = match link.call(&[b"SCAN", b"none"]) {
        Err(LinkError::Server(error)) => !error.is_denied() && !error.is_unknown_command(),
        result => allowed(result)?,
    };
    note_if("SCAN", scan);
    let multi = note_if("MULTI", allowed(link.call(&[b"MULTI"]))?);
    // A refused EXEC discards the transaction as well.
    let transaction = multi && note_if("EXEC", allowed_at_all(link.call(&[b"EXEC"]))?);
    let abilities = Abilities {
        transaction,
        role: note_if("ROLE", allowed(link.call(&[b"ROLE"]))?),
        dbsize: note_if("DBSIZE", allowed(link.call(&[b"DBSIZE"]))?),
        select: note_if("SELECT", allowed(link.call(&[b"SELECT", b"0"]))?),
    };
    let remedy = "grant the user what docs/operations.md lists";
    let check = match refused.as_slice() {
        [] => ok("rights", "all commands that a sweep uses are allowed"),
        refused if refused.contains(&"SCAN") => note(Verdict::Refused, "rights", "SCAN is refused", remedy),
        refused => {
            let finding = format!("refused: {}; docs/operations.md says what is lost by that", refused.join(", "));
            note(Verdict::Warning, "rights", finding, remedy)
        }
    };
    Ok((abilities, check))
}

/// Whether the server did it, whatever kept it from it otherwise.
fn allowed_at_all(result: Result<Reply, LinkError>) -> Result<bool, LinkError> {
    match result {
        Ok(_) => Ok(true),
        Err(LinkError::Server(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What a node of a cluster lets us ask beside that.
fn cluster_rights(link: &mut Link, info: Option<&Info>) -> Result<Check, LinkError> {
    let name = "cluster";
    let mut lost = Vec::new();
    if !allowed(link.call(&[b"CLUSTER", b"COUNTKEYSINSLOT", b"0"]))? {
        lost.push("CLUSTER COUNTKEYSINSLOT is refused, so that progress goes by slots instead of keys");
    }
    if !allowed(link.call(&[b"CLUSTER", b"INFO"]))? {
        lost.push("CLUSTER INFO is refused, so that a node which has lost the others is not told apart");
    }
    let moves_slots = info.is_some_and(|info| info.is_since((9, 0), None));
    if moves_slots && !allowed(link.call(&[b"CLUSTER", b"GETSLOTMIGRATIONS"]))? {
        lost.push(
            "CLUSTER GETSLOTMIGRATIONS is refused, so that slots which move away in mid-sweep can leave dead keys",
        );
    }
    Ok(match lost.as_slice() {
        [] => ok(name, "the cluster tells all that a sweep asks"),
        lost => note(Verdict::Warning, name, lost.join("; "), "grant the user what docs/operations.md lists"),
    })
}

/// Compares the primary's clock with its replicas' and our own.
fn clock(link: &mut Link, address: &Address, role: &RoleView, access: Access<'_>) -> Result<Check, LinkError> {
    let name = "clock";
    let Some(own) = skew(link)? else {
        return Ok(note(Verdict::Warning, name, "TIME is refused; clocks cannot be compared", "grant +time"));
    };
    let mut worst = (own, "this machine's".to_owned());
    if let RoleView::Primary { addresses, .. } = role {
        for replica in addresses {
            // One that cannot be reached, or not with these credentials, says nothing about the clock.
            let Ok(mut link) = access.open(&access.target.address_map.dialled(replica.clone())) else { continue };
            if let Ok(Some(theirs)) = skew(&mut link) {
                let apart = own - theirs;
                if apart.abs() > worst.0.abs() {
                    worst = (apart, format!("its replica {replica}'s"));
                }
            }
        }
    }
    let (seconds, whose) = worst;
    let finding = format!(
        "{address} is {:.1} s {} {whose} clock",
        seconds.abs(),
        if seconds < 0.0 { "behind" } else { "ahead of" }
    );
    Ok(match seconds.abs() > MAX_CLOCK_SKEW.as_secs_f64() {
        true => note(
            Verdict::Refused,
            name,
            finding,
            "set the clocks (NTP) first: by a fast clock, keys die that are alive elsewhere",
        ),
        false => ok(name, format!("the clocks are within {:.1} s", seconds.abs().max(0.1))),
    })
}

/// Seconds by which the server is ahead of us; `None` where it does not tell.
fn skew(link: &mut Link) -> Result<Option<f64>, LinkError> {
    let before = now();
    let reply = match link.call(&[b"TIME"]) {
        Ok(reply) => reply,
        Err(LinkError::Server(error)) if error.is_denied() || error.is_unknown_command() => return Ok(None),
        Err(error) => return Err(error),
    };
    let middle = (before + now()) / 2.0;
    let Reply::Array(parts) = &reply else { return Ok(None) };
    let part = |index: usize| parts.get(index).and_then(Reply::integer).map(|value| value as f64);
    Ok(part(0).zip(part(1)).map(|(seconds, micros)| seconds + micros / 1e6 - middle))
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

/// Whether somebody hears of each expired key.
fn listeners(link: &mut Link, info: &Info) -> Result<Check, LinkError> {
    let name = LISTENERS;
    let tracking: u64 = info.number("tracking_clients").unwrap_or(0);
    let events = config(link, "notify-keyspace-events")?;
    // Where CONFIG is refused, a subscriber to such a channel tells as much.
    let published = events.as_ref().is_none_or(|flags| flags.contains('x') || flags.contains('A'));
    let subscribed = published && {
        let channels = link.call(&[b"PUBSUB", b"CHANNELS", b"__key*__:*"]);
        let patterns = link.call(&[b"PUBSUB", b"NUMPAT"]);
        if [&channels, &patterns].into_iter().any(|reply| matches!(reply, Err(LinkError::Server(_)))) {
            let finding = "PUBSUB is refused, so that it is not known whether somebody listens to expired events";
            return Ok(note(Verdict::Warning, name, finding, "grant +pubsub|channels and +pubsub|numpat"));
        }
        let some = |reply: Reply| match reply {
            Reply::Array(channels) => !channels.is_empty(),
            reply => events.is_some() && reply.integer().unwrap_or(0) > 0,
        };
        some(channels?) | some(patterns?)
    };
    let remedy = "to sweep faster, end the subscription for the time being, or say how fast with --releases-per-second";
    Ok(if subscribed {
        let finding = format!(
            "somebody may be subscribed to expired events: at most {RELEASES_WHILE_LISTENED_TO} releases a second"
        );
        note(Verdict::Slower, name, finding, remedy)
    } else if tracking > 0 {
        let finding = format!("{tracking} clients track keys: at most {RELEASES_WHILE_LISTENED_TO} releases a second");
        note(Verdict::Slower, name, finding, remedy)
    } else {
        ok(name, "nobody listens to expired events")
    })
}

fn append_only(link: &mut Link, info: &Info) -> Result<Check, LinkError> {
    let name = "append-only file";
    if info.text("aof_enabled") != Some("1") {
        return Ok(ok(name, "off"));
    }
    Ok(match config(link, "appendfsync")?.as_deref() {
        Some("always") => note(
            Verdict::Slower,
            name,
            "every delete waits for the disk (appendfsync always)",
            "set appendfsync everysec while sweeping, or use pace gentle",
        ),
        Some(policy) => ok(name, format!("appendfsync {policy}")),
        None => ok(name, "on; CONFIG is refused, so its policy is not known"),
    })
}

fn lazy_free(link: &mut Link) -> Result<Check, LinkError> {
    let name = FREEING;
    Ok(match config(link, "lazyfree-lazy-expire")?.as_deref() {
        Some("no") => note(
            Verdict::Warning,
            name,
            "large values are freed in the main thread, a hash of a million fields in some 0.5 s",
            "CONFIG SET lazyfree-lazy-expire yes, if there are large values with a TTL",
        ),
        Some(_) => ok(name, "large values are freed in the background"),
        None => ok(name, "CONFIG is refused, so it is not known whether large values block"),
    })
}

fn replication(info: &Info, role: &RoleView) -> Check {
    let name = "replicas";
    let RoleView::Primary { replicas, max_lag, .. } = role else { return ok(name, "not known") };
    if *replicas == 0 {
        return ok(name, "none");
    }
    let backlog: u64 = info.number("repl_backlog_size").unwrap_or(0);
    let keys_with_ttl: u64 = info.keyspace().iter().map(|line| line.expires).sum();
    let to_come = (keys_with_ttl as f64 * USUALLY_DEAD) as u64 * BYTES_A_DELETE;
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / (1024.0 * 1024.0));
    match backlog > 0 && to_come > backlog {
        true => note(
            Verdict::Warning,
            name,
            format!(
                "{replicas} attached; up to {} of deletes may come, and the backlog holds {}: one that loses its connection may have to synchronise in full",
                mebibytes(to_come),
                mebibytes(backlog)
            ),
            "CONFIG SET repl-backlog-size higher before sweeping, or use pace gentle",
        ),
        false => ok(name, format!("{replicas} attached, at most {} behind", mebibytes(*max_lag))),
    }
}

fn memory(info: &Info) -> Check {
    let bytes = |field: &str| info.number::<u64>(field).unwrap_or(0);
    let (used, limit, system) = (bytes("used_memory"), bytes("maxmemory"), bytes("total_system_memory"));
    let share = |of: u64| used as f64 / of as f64 * 100.0;
    match (limit, system) {
        (0, 0) => ok("memory", "no limit is set"),
        (0, system) => ok("memory", format!("no maxmemory; {:.0} % of the system's memory is used", share(system))),
        (limit, _) => ok("memory", format!("{:.0} % of maxmemory is used", share(limit))),
    }
}

fn state(link: &mut Link) -> Result<Check, LinkError> {
    let look = Look::take(link)?;
    Ok(if look.expiry == Expiry::Paused {
        note(
            Verdict::Slower,
            "state",
            "writes, and with them expiry, are paused; the sweep waits",
            "CLIENT UNPAUSE, or wait for the failover",
        )
    } else if look.forked {
        note(
            Verdict::Slower,
            "state",
            "a child process saves or rewrites the log; the sweep waits for it",
            "nothing, or sweep at another time",
        )
    } else if look.expiry == Expiry::NotShown {
        ok("state", "no child process; this version does not tell whether expiry is paused")
    } else {
        ok("state", "no child process, expiry is not paused")
    })
}

/// A directive's value; `None` where CONFIG is refused or the directive unknown.
fn config(link: &mut Link, directive: &str) -> Result<Option<String>, LinkError> {
    match link.call(&[b"CONFIG", b"GET", directive.as_bytes()]) {
        Ok(Reply::Array(pair)) => Ok(pair.get(1).and_then(Reply::text).map(str::to_owned)),
        Ok(_) | Err(LinkError::Server(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a command may be run. Only a refusal counts as one; anything else is an error of its own.
fn allowed(result: Result<Reply, LinkError>) -> Result<bool, LinkError> {
    match result {
        Ok(_) => Ok(true),
        Err(LinkError::Server(error)) if error.is_denied() || error.is_unknown_command() => Ok(false),
        Err(error) => Err(error),
    }
}
