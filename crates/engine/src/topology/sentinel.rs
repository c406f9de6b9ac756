//! Sentinels, which know where the primary of a name is.

use super::{Access, Place, SlotSet};
use crate::{
    failure::{Failure, FailureKind, Trouble},
    link::{Link, LinkError, Reply},
    target::{Address, Credentials},
};

/// Asks a Sentinel where the primary is.
pub(super) fn ask(link: &mut Link, asked: &Address, name: &str, access: Access<'_>) -> Result<Place, Trouble> {
    let fatal = |kind, sentence: String| Trouble::Fatal(Failure::new(kind, sentence));
    let reply = match link.call(&[b"SENTINEL", b"get-master-addr-by-name", name.as_bytes()]) {
        Ok(reply) => reply,
        Err(LinkError::Server(error)) if error.is_denied() => {
            let sentence =
                format!("the Sentinel {asked} refuses to tell ({error}); grant +sentinel|get-master-addr-by-name");
            return Err(fatal(FailureKind::Denied, sentence));
        }
        Err(LinkError::Server(error)) if error.is_unknown_command() => {
            let sentence = format!("{asked} is no Sentinel; use redis:// for a server, or name the port of a Sentinel");
            return Err(fatal(FailureKind::Unsupported, sentence));
        }
        Err(error) => return Err(Trouble::at(asked, error)),
    };
    match address(&reply) {
        Some(address) => Ok(Place {
            address: access.target.address_map.dialled(address),
            slots: SlotSet::default(),
            replicas: Vec::new(),
        }),
        None => {
            let known = names(link).map_err(|error| Trouble::at(asked, error))?;
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let sentence =
                format!("the Sentinel {asked} watches no primary called {name:?}; those it watches: {known}");
            Err(fatal(FailureKind::Unsupported, sentence))
        }
    }
}

/// Who we are to the Sentinels, in words for an error: they have a password of their own, or none.
pub(super) fn denied(asked: &Address, credentials: &Credentials, trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Fatal(failure) if failure.kind == FailureKind::Denied => {
            let remedy = match credentials.password {
                Some(_) => "check the Sentinels' own user and password",
                None => "give the Sentinels' own password with --sentinel-password-file",
            };
            let sentence = format!("the Sentinel {asked} does not let us in; {remedy}");
            Trouble::Fatal(Failure::new(FailureKind::Denied, sentence))
        }
        trouble => trouble,
    }
}

fn address(reply: &Reply) -> Option<Address> {
    let Reply::Array(parts) = reply else { return None };
    let port = u16::try_from(parts.get(1)?.integer()?).ok()?;
    Some(Address { host: parts.first()?.text()?.to_owned(), port })
}

/// The names of the primaries that a Sentinel watches; none where it does not tell.
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
        fields.get(at + 1)?.text().map(str::to_owned)
    };
    Ok(primaries.iter().filter_map(name).collect())
}
