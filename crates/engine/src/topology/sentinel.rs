//! Asking Sentinels for the primary of a name.

use super::{connector::Connector, node::PrimaryNode};
use crate::{
    address::is_host,
    failure::{ConnectFault, Failure, FailureKind, ShardError},
    link::{Link, LinkError, Reply},
    target::{Address, Credentials},
};

/// Names of monitored primaries that a message lists, and characters of each.
const NAMES_SHOWN: usize = 10;
const NAME_SHOWN: usize = 64;

/// Asks a Sentinel for the primary.
pub(super) fn ask(
    link: &mut Link,
    asked: &Address,
    name: &str,
    connector: Connector<'_>,
) -> Result<PrimaryNode, ShardError> {
    let fatal = |kind, sentence: String| ShardError::Fatal(Failure::new(kind, sentence));
    let reply = match link.call(&[b"SENTINEL", b"get-master-addr-by-name", name.as_bytes()]) {
        Ok(reply) => reply,
        Err(LinkError::Server(error)) if error.is_denied() => {
            let sentence =
                format!("the Sentinel {asked} refuses the question ({error}); grant +sentinel|get-master-addr-by-name");
            let failure = Failure::new(FailureKind::Denied, sentence).with_fault(ConnectFault::Permission);
            return Err(ShardError::Fatal(failure));
        }
        Err(LinkError::Server(error)) if error.is_unknown_command() => {
            let sentence =
                format!("{asked} is not a Sentinel; use redis:// for a server, or name the port of a Sentinel");
            return Err(fatal(FailureKind::Unsupported, sentence));
        }
        Err(error) => return Err(ShardError::at(asked, error)),
    };
    if matches!(reply, Reply::Array(_)) && address(&reply).is_none() {
        return Err(ShardError::at(asked, LinkError::Protocol("an address that is none")));
    }
    match address(&reply) {
        Some(address) => Ok(PrimaryNode::alone(connector.target.address_map.dialled(address))),
        None => {
            let known = names(link).map_err(|error| ShardError::at(asked, error))?;
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let sentence = format!("the Sentinel {asked} monitors no primary named {name:?}; it monitors: {known}");
            Err(fatal(FailureKind::Unsupported, sentence))
        }
    }
}

/// Rewrites the error of a Sentinel that denies access: Sentinels have credentials of their own.
pub(super) fn denied(asked: &Address, credentials: &Credentials, error: ShardError) -> ShardError {
    match error {
        ShardError::Fatal(failure) if failure.kind == FailureKind::Denied => {
            let remedy = match credentials.password {
                Some(_) => "check the Sentinels' own user and password",
                None => "give the Sentinels' own password with --sentinel-password-file",
            };
            let message = format!("the Sentinel {asked} denies access; {remedy}");
            ShardError::Fatal(Failure { message, ..failure })
        }
        error => error,
    }
}

fn address(reply: &Reply) -> Option<Address> {
    let Reply::Array(parts) = reply else { return None };
    let port = u16::try_from(parts.get(1)?.integer()?).ok()?;
    let host = parts.first()?.text().filter(|host| is_host(host))?;
    Some(Address::tcp(host, port))
}

/// Returns the names of the first primaries that a Sentinel monitors; empty where it refuses the question.
fn names(link: &mut Link) -> Result<Vec<String>, LinkError> {
    let reply = match link.call(&[b"SENTINEL", b"MASTERS"]) {
        Ok(reply) => reply,
        Err(LinkError::Server(_)) => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let Reply::Array(primaries) = reply else { return Ok(Vec::new()) };
    let name = |primary: &Reply| {
        let Reply::Array(fields) = primary else { return None };
        let at = fields.iter().position(|field| field.text() == Some("name"))?;
        let name = fields.get(at + 1)?.text()?;
        Some(name.chars().filter(|c| !c.is_control()).take(NAME_SHOWN).collect())
    };
    Ok(primaries.iter().filter_map(name).take(NAMES_SHOWN).collect())
}
