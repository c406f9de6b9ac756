//! The commands that a server allows.

use super::check::{Check, Verdict};
use crate::link::{Capabilities, Info, Link, LinkError, Reply};

/// Tries every command of a sweep, without reclaiming a key: servers check permissions before arguments, so that SCAN can be
/// tried with an invalid cursor.
pub(crate) fn rights(link: &mut Link) -> Result<(Capabilities, Check), LinkError> {
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
    let transaction = multi && note_if("EXEC", succeeded(link.call(&[b"EXEC"]))?);
    let capabilities = Capabilities {
        transaction,
        role: note_if("ROLE", allowed(link.call(&[b"ROLE"]))?),
        dbsize: note_if("DBSIZE", allowed(link.call(&[b"DBSIZE"]))?),
        time: false,
        select: note_if("SELECT", allowed(link.call(&[b"SELECT", b"0"]))?),
    };
    let remedy = "grant the user the commands that docs/operations.md lists";
    let check = match refused.as_slice() {
        [] => Check::ok("rights", "all commands that a scan uses are allowed"),
        refused if refused.contains(&"SCAN") => {
            Check::with_remedy(Verdict::Refused, "rights", "SCAN is refused", remedy)
        }
        refused => {
            let finding =
                format!("refused: {}; docs/operations.md lists what is lost without each", refused.join(", "));
            Check::with_remedy(Verdict::Warning, "rights", finding, remedy)
        }
    };
    Ok((capabilities, check))
}

/// Whether the command succeeded; any error reply counts as no.
fn succeeded(result: Result<Reply, LinkError>) -> Result<bool, LinkError> {
    match result {
        Ok(_) => Ok(true),
        Err(LinkError::Server(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Checks the commands that a sweep uses on cluster nodes in addition.
pub(super) fn cluster_rights(link: &mut Link, info: Option<&Info>) -> Result<Check, LinkError> {
    let name = "cluster";
    let mut lost = Vec::new();
    if !allowed(link.call(&[b"CLUSTER", b"COUNTKEYSINSLOT", b"0"]))? {
        lost.push("CLUSTER COUNTKEYSINSLOT is refused, so that progress counts slots instead of keys");
    }
    if !allowed(link.call(&[b"CLUSTER", b"INFO"]))? {
        lost.push("CLUSTER INFO is refused, so that a node which has lost the others is not detected");
    }
    let moves_slots = info.is_some_and(|info| info.is_since((9, 0), None));
    if moves_slots && !allowed(link.call(&[b"CLUSTER", b"GETSLOTMIGRATIONS"]))? {
        lost.push(
            "CLUSTER GETSLOTMIGRATIONS is refused, so that slots which move away during the scan can leave stale keys",
        );
    }
    Ok(match lost.as_slice() {
        [] => Check::ok(name, "all cluster commands that a scan uses are allowed"),
        lost => Check::with_remedy(
            Verdict::Warning,
            name,
            lost.join("; "),
            "grant the user the commands that docs/operations.md lists",
        ),
    })
}

/// Whether the user may run a command. Other errors than a refusal are returned.
fn allowed(result: Result<Reply, LinkError>) -> Result<bool, LinkError> {
    match result {
        Ok(_) => Ok(true),
        Err(LinkError::Server(error)) if error.is_denied() || error.is_unknown_command() => Ok(false),
        Err(error) => Err(error),
    }
}
