//! The commands that a server allows.

use super::check::{Check, Verdict};
use crate::link::{Capabilities, Info, Link, LinkError, Pipeline, Replies, Reply, ServerError};

/// Page with the commands that a scan uses.
const GRANT: &str = "grant the user the commands that docs/servers.md lists";

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

/// The replies to the commands of a sweep that were tried outside of a transaction.
pub(super) struct Commands {
    no_scan: Option<String>,
    /// EXEC, where it is refused.
    no_exec: Option<&'static str>,
    role: bool,
    dbsize: bool,
    select: bool,
}

impl Commands {
    /// Adds every command of a sweep, none of which reclaims a key: servers check permissions before arguments, so that SCAN can be
    /// tried with an invalid cursor. EXEC comes before any MULTI: where it is refused, the connection could not leave a
    /// transaction.
    pub fn add(pipeline: &mut Pipeline) {
        pipeline.add(&[b"SCAN", b"none"]);
        pipeline.add(&[b"EXEC"]);
        pipeline.add(&[b"ROLE"]);
        pipeline.add(&[b"DBSIZE"]);
        pipeline.add(&[b"SELECT", b"0"]);
    }

    /// Takes the replies.
    pub fn take(replies: &mut Replies) -> Result<Self, LinkError> {
        let no_scan = scan_refusal(replies.take())?;
        let no_exec = match replies.take() {
            Err(LinkError::Server(error)) if error.to_string().to_ascii_lowercase().contains("without multi") => None,
            Err(LinkError::Server(error)) if error.is_refusal() => Some("EXEC"),
            result => result.map(|_| None)?,
        };
        let mut is_allowed = || replies.optional().map(|reply| reply.is_some());
        Ok(Self { no_scan, no_exec, role: is_allowed()?, dbsize: is_allowed()?, select: is_allowed()? })
    }

    /// Adds a transaction of a command that changes nothing, unless EXEC is refused.
    pub fn add_transaction(&self, pipeline: &mut Pipeline) {
        if self.no_exec.is_none() {
            pipeline.add(&[b"MULTI"]);
            pipeline.add(&[b"SCAN", b"none"]);
            pipeline.add(&[b"EXEC"]);
        }
    }

    /// Takes the replies to the transaction. Returns the rights.
    pub fn rights(self, replies: &mut Replies) -> Result<Rights, LinkError> {
        let (transaction, out_of_memory) = match self.no_exec {
            Some(command) => (Err(command), false),
            None => transaction(replies)?,
        };
        let Self { no_scan, role, dbsize, select, .. } = self;
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
        Ok(Rights { capabilities, out_of_memory, no_scan, refused })
    }
}

impl Rights {
    /// Tries every command of a sweep, in two round trips.
    pub fn ask(link: &mut Link) -> Result<Self, LinkError> {
        let mut pipeline = Pipeline::default();
        Commands::add(&mut pipeline);
        let commands = Commands::take(&mut link.ask(&pipeline)?)?;
        let mut pipeline = Pipeline::default();
        commands.add_transaction(&mut pipeline);
        commands.rights(&mut link.ask(&pipeline)?)
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
fn scan_refusal(reply: Result<Reply, LinkError>) -> Result<Option<String>, LinkError> {
    match reply {
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

/// Takes the replies to a transaction of a command that changes nothing. `Err` holds the command that is refused; the flag says
/// whether the server is out of memory, and refuses transactions only for as long as it is.
fn transaction(replies: &mut Replies) -> Result<(Result<(), &'static str>, bool), LinkError> {
    let is_begun = replies.optional()?.is_some();
    let refusal = match replies.take() {
        Ok(_) => None,
        Err(LinkError::Server(error)) => Some(error),
        Err(error) => return Err(error),
    };
    let is_executed = replies.optional()?.is_some();
    match refusal {
        _ if !is_begun => Ok((Err("MULTI"), false)),
        Some(error) if error.is_out_of_memory() => Ok((Ok(()), true)),
        Some(error) if error.is_temporary() => Err(LinkError::Server(error)),
        None if !is_executed => Ok((Err("EXEC"), false)),
        // SCAN itself may be what is refused; its own check says so.
        _ => Ok((Ok(()), false)),
    }
}

/// The commands that a sweep uses on cluster nodes in addition, and whether each is refused.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ClusterCommands {
    countkeysinslot: bool,
    myid: bool,
    info: bool,
    getslotmigrations: bool,
}

impl ClusterCommands {
    /// Adds the commands.
    pub fn add(pipeline: &mut Pipeline) {
        pipeline.add(&[b"CLUSTER", b"COUNTKEYSINSLOT", b"0"]);
        pipeline.add(&[b"CLUSTER", b"MYID"]);
        pipeline.add(&[b"CLUSTER", b"INFO"]);
        pipeline.add(&[b"CLUSTER", b"GETSLOTMIGRATIONS"]);
    }

    /// Takes the replies.
    pub fn take(replies: &mut Replies) -> Result<Self, LinkError> {
        let mut is_refused = || replies.optional().map(|reply| reply.is_none());
        let (countkeysinslot, myid, info) = (is_refused()?, is_refused()?, is_refused()?);
        Ok(Self { countkeysinslot, myid, info, getslotmigrations: is_refused()? })
    }

    /// Returns the check of these commands.
    pub fn check(self, info: Option<&Info>) -> Check {
        let name = "cluster";
        let moves_slots = info.is_some_and(|info| info.is_since((9, 0), None));
        let lost = [
            (self.countkeysinslot, "CLUSTER COUNTKEYSINSLOT is refused, so that progress counts slots instead of keys"),
            (
                self.myid,
                "CLUSTER MYID is refused, so that an announced address which leads to another node is not detected",
            ),
            (self.info, "CLUSTER INFO is refused, so that a node which has lost the others is not detected"),
            (
                self.getslotmigrations && moves_slots,
                "CLUSTER GETSLOTMIGRATIONS is refused, so that slots which move away during the scan can leave stale keys",
            ),
        ];
        let lost: Vec<&str> = lost.into_iter().filter_map(|(is_refused, lost)| is_refused.then_some(lost)).collect();
        match lost.as_slice() {
            [] => Check::ok(name, "all cluster commands that a scan uses are allowed"),
            lost => Check::with_remedy(Verdict::Warning, name, lost.join("; "), GRANT),
        }
    }
}
