//! The commands that a server allows.

use super::check::{Check, Verdict};
use crate::link::{Capabilities, Info, Link, LinkError, ServerError};

/// Page with the commands that a scan uses.
const GRANT: &str = "grant the user the commands that docs/operations.md lists";

/// What the user may do on a server.
pub(crate) struct Rights {
    pub capabilities: Capabilities,
    /// Whether the server refuses every transaction now, because used_memory is above maxmemory (Redis before 7.2).
    pub out_of_memory: bool,
    /// Why SCAN cannot be used.
    no_scan: Option<String>,
    /// The refused commands, and what is lost without them.
    refused: Vec<(&'static str, &'static str)>,
}

impl Rights {
    /// Tries every command of a sweep, without reclaiming a key: servers check permissions before arguments, so that SCAN can be
    /// tried with an invalid cursor.
    pub fn ask(link: &mut Link) -> Result<Self, LinkError> {
        let no_scan = scan_refusal(link)?;
        let (transaction, out_of_memory) = transaction(link)?;
        let role = link.call_optional(&[b"ROLE"])?.is_some();
        let dbsize = link.call_optional(&[b"DBSIZE"])?.is_some();
        let select = link.call_optional(&[b"SELECT", b"0"])?.is_some();
        let refused = [
            (transaction.err(), "reclaimed keys are counted together with what clients do in that moment"),
            (
                (!role).then_some("ROLE"),
                "a demotion is noticed only when the connection breaks, and replicas are not waited for",
            ),
            ((!dbsize).then_some("DBSIZE"), "reclaimed keys cannot be counted"),
            ((!select).then_some("SELECT"), "only database 0 can be scanned"),
        ];
        let refused =
            refused.into_iter().filter_map(|(command, lost)| command.map(|command| (command, lost))).collect();
        let capabilities =
            Capabilities { transaction: transaction.is_ok(), role, dbsize, select, time: false, memory: false };
        Ok(Self { capabilities, out_of_memory, no_scan, refused })
    }

    /// Returns the check of these rights. Without SCAN it refuses the scan.
    pub fn check(&self) -> Check {
        let name = "rights";
        if let Some(finding) = &self.no_scan {
            return Check::with_remedy(Verdict::Refused, name, finding, GRANT);
        }
        if self.refused.is_empty() {
            return Check::ok(name, "all commands that a scan uses are allowed");
        }
        let (commands, lost): (Vec<&str>, Vec<&str>) = self.refused.iter().copied().unzip();
        let finding = format!("refused: {}, so that {}", commands.join(", "), lost.join("; "));
        Check::with_remedy(Verdict::Warning, name, finding, GRANT)
    }
}

/// Returns why SCAN cannot be used, if it cannot. Only an error about its argument shows that the command is allowed: vendors
/// refuse commands in words of their own.
fn scan_refusal(link: &mut Link) -> Result<Option<String>, LinkError> {
    match link.call(&[b"SCAN", b"none"]) {
        Ok(_) => Ok(None),
        Err(LinkError::Server(error)) if error.is_unknown_command() => Ok(Some(
            "the server does not know SCAN: it is renamed or removed there (rename-command), or a proxy lacks it"
                .into(),
        )),
        Err(LinkError::Server(error)) if is_about_argument(&error) => Ok(None),
        Err(LinkError::Server(error)) if error.is_refusal() => Ok(Some(format!("SCAN is refused ({error})"))),
        Err(error) => Err(error),
    }
}

fn is_about_argument(error: &ServerError) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    !error.is_denied() && ["cursor", "integer", "syntax", "argument"].iter().any(|word| text.contains(word))
}

/// Tries a transaction with a command that changes nothing. `Err` holds the command that is refused; the flag says whether the
/// server is out of memory, and refuses transactions only for as long as it is.
fn transaction(link: &mut Link) -> Result<(Result<(), &'static str>, bool), LinkError> {
    // EXEC first: where it is refused, the connection could not leave a transaction.
    match link.call(&[b"EXEC"]) {
        Err(LinkError::Server(error)) if error.to_string().to_ascii_lowercase().contains("without multi") => {}
        Err(LinkError::Server(error)) if error.is_refusal() => return Ok((Err("EXEC"), false)),
        result => drop(result?),
    }
    if link.call_optional(&[b"MULTI"])?.is_none() {
        return Ok((Err("MULTI"), false));
    }
    let refusal = match link.call(&[b"SCAN", b"none"]) {
        Ok(_) => None,
        Err(LinkError::Server(error)) => Some(error),
        Err(error) => return Err(error),
    };
    let is_executed = link.call_optional(&[b"EXEC"])?.is_some();
    match refusal {
        Some(error) if error.is_out_of_memory() => Ok((Ok(()), true)),
        Some(error) if error.is_temporary() => Err(LinkError::Server(error)),
        None if !is_executed => Ok((Err("EXEC"), false)),
        // SCAN itself may be what is refused; its own check says so.
        _ => Ok((Ok(()), false)),
    }
}

/// Checks the commands that a sweep uses on cluster nodes in addition.
pub(super) fn cluster_rights(link: &mut Link, info: Option<&Info>) -> Result<Check, LinkError> {
    let name = "cluster";
    let mut lost = Vec::new();
    let mut refuses = |words: &[&[u8]]| link.call_optional(words).map(|reply| reply.is_none());
    if refuses(&[b"CLUSTER", b"COUNTKEYSINSLOT", b"0"])? {
        lost.push("CLUSTER COUNTKEYSINSLOT is refused, so that progress counts slots instead of keys");
    }
    if refuses(&[b"CLUSTER", b"MYID"])? {
        lost.push("CLUSTER MYID is refused, so that an announced address which leads to another node is not detected");
    }
    if refuses(&[b"CLUSTER", b"INFO"])? {
        lost.push("CLUSTER INFO is refused, so that a node which has lost the others is not detected");
    }
    let moves_slots = info.is_some_and(|info| info.is_since((9, 0), None));
    if moves_slots && refuses(&[b"CLUSTER", b"GETSLOTMIGRATIONS"])? {
        lost.push(
            "CLUSTER GETSLOTMIGRATIONS is refused, so that slots which move away during the scan can leave stale keys",
        );
    }
    Ok(match lost.as_slice() {
        [] => Check::ok(name, "all cluster commands that a scan uses are allowed"),
        lost => Check::with_remedy(Verdict::Warning, name, lost.join("; "), GRANT),
    })
}
