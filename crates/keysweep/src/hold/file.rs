//! The file of the servers' own settings. It survives the loss of the store and of the process that changed them, and contains
//! no secret: `keysweep restore` needs nothing else but passwords.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use keysweep_engine::{Address, BaselineRecord, BaselineRegistry, Reservation, ServerProcess};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::folder;

/// Name of the file in a data folder.
const NAME: &str = "restore.json";
/// Name of the file beside it that processes lock while they change it.
const LOCK: &str = "restore.lock";
/// Characters of an address and of a run ID in the name of a lock file, at most: a run ID has 40, and file systems take 255 in all.
const LONGEST_PART: usize = 100;
/// Version of the format.
const VERSION: u32 = 1;

/// What the file contains.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: u32,
    records: Vec<BaselineRecord>,
}

/// The file of the servers' own settings. Several processes may share it.
#[derive(Debug, Clone)]
pub struct RestoreFile {
    path: PathBuf,
}

impl RestoreFile {
    /// Returns the file in a data folder, which is created if it does not exist.
    ///
    /// # Errors
    /// The folder cannot be created.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("--data-dir {}", folder.display()))?;
        Ok(Self { path: folder.join(NAME) })
    }

    /// Returns the file in a data folder, which is created with the first record.
    pub fn in_data(folder: &Path) -> Self {
        Self { path: folder.join(NAME) }
    }

    /// Returns a file by its own path.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Returns the path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns all records; none if there is no file.
    ///
    /// # Errors
    /// The file cannot be read, or is not such a file; the message names it.
    pub fn records(&self) -> Result<Vec<BaselineRecord>, String> {
        let failed = |cause: String| format!("{}: {cause}", self.path.display());
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error.to_string())),
        };
        let contents: Contents = serde_json::from_str(&text).map_err(|error| {
            failed(format!("not a file of settings to restore ({error}); mend it, or move it away"))
        })?;
        match contents.version {
            VERSION => Ok(contents.records),
            version => Err(failed(format!("version {version} of the format is unknown; use a newer keysweep"))),
        }
    }

    /// Changes the records. The file is replaced as a whole, and durable when this returns.
    fn change(&self, change: impl FnOnce(&mut Vec<BaselineRecord>)) -> Result<(), String> {
        let failed = |error: io::Error| format!("{}: {error}", self.path.display());
        let folder = folder::of(&self.path);
        fs::create_dir_all(folder).map_err(failed)?;
        let lock = File::create(folder.join(LOCK)).map_err(failed)?;
        lock.lock().map_err(failed)?;
        let mut records = self.records()?;
        change(&mut records);
        let text = serde_json::to_string_pretty(&Contents { version: VERSION, records })
            .map_err(|error| failed(io::Error::other(error)))?;
        let replace = || -> io::Result<()> {
            let mut file = NamedTempFile::new_in(folder)?;
            writeln!(file, "{text}")?;
            file.as_file().sync_all()?;
            file.persist(&self.path).map_err(|error| error.error)?;
            folder::sync(&self.path)
        };
        replace().map_err(failed)
    }

    /// Returns what a store has recorded of a target's servers, with what the file knows of them: `keysweep hold` and `keysweep
    /// restore` record in the file alone, and the store may have been lost, or replaced by an older backup. Returns also why the file
    /// was not read, which keeps no server in the store from being restored.
    ///
    /// # Errors
    /// See [`RestoreFile::records`]; only where the store knows of nothing, since this must not pass for nothing to restore.
    pub(super) fn beside(
        &self,
        stored: Vec<BaselineRecord>,
        target: &str,
    ) -> Result<(Vec<BaselineRecord>, Option<String>), String> {
        let is_of_target = |record: &BaselineRecord| {
            record.target == target || stored.iter().any(|stored| stored.address == record.address)
        };
        match self.records() {
            Ok(filed) => {
                let filed = filed.into_iter().filter(is_of_target).collect();
                Ok((merged(stored, filed), None))
            }
            Err(cause) if stored.is_empty() => Err(cause),
            Err(cause) => Ok((stored, Some(cause))),
        }
    }

    /// Removes the record of a server: values that are found later count as its own.
    ///
    /// # Errors
    /// The cause; the record stays.
    pub fn remove(&self, address: &Address) -> Result<(), String> {
        self.change(|records| records.retain(|one| one.address != *address))
    }
}

/// Returns the records of the store with those of the file. Of two records of a server the later one decides.
pub(super) fn merged(stored: Vec<BaselineRecord>, filed: Vec<BaselineRecord>) -> Vec<BaselineRecord> {
    let mut filed: BTreeMap<_, _> = filed.into_iter().map(|record| (record.address.clone(), record)).collect();
    let of_both = |stored: BaselineRecord| match filed.remove(&stored.address) {
        Some(other) => stored.merged(other),
        None => stored,
    };
    let mut records: Vec<_> = stored.into_iter().map(of_both).collect();
    records.extend(filed.into_values());
    records
}

/// Why a server was not reserved.
#[derive(Debug, thiserror::Error)]
pub enum NotReserved {
    /// Another process, or another hold of this one, has it.
    #[error("another keysweep with the folder {} holds this server", .folder.display())]
    Held {
        /// The folder that both share.
        folder: PathBuf,
    },
    /// The folder cannot be written to.
    #[error("{}: {cause}", .folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system says.
        cause: io::Error,
    },
}

/// Returns the name of a server's lock file. Its address is a part of it, since servers name their run IDs themselves: one that
/// has none, or claims that of another one, must not keep that one from being held.
fn lock_name(server: &ServerProcess) -> String {
    let plain = |text: &str, longest| -> String {
        let letter = |letter: char| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' };
        text.chars().map(letter).take(longest).collect()
    };
    format!("hold-{}-{}.lock", plain(&server.address, LONGEST_PART), plain(&server.run_id, LONGEST_PART))
}

/// The lock of a server that is held, as long as it exists.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Its name goes before the lock: a process that locks the file without a name notices that.
        let _ = fs::remove_file(&self.path);
    }
}

impl RestoreFile {
    /// Reserves the writes of a server process for one holder among all that share the folder. A process that dies frees what it
    /// has reserved.
    ///
    /// # Errors
    /// Another holder has it, or the folder cannot be written to.
    pub fn reserve(&self, server: &ServerProcess) -> Result<Reservation, NotReserved> {
        let folder = folder::of(&self.path);
        let failed = |cause: io::Error| NotReserved::Folder { folder: folder.to_owned(), cause };
        fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join(lock_name(server));
        loop {
            let file = File::create(&path).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(NotReserved::Held { folder: folder.to_owned() });
                }
                Err(TryLockError::Error(error)) => return Err(failed(error)),
            }
            let locked = file.metadata().map_err(failed)?.ino();
            if fs::metadata(&path).is_ok_and(|named| named.ino() == locked) {
                return Ok(Box::new(Lock { path, _file: file }));
            }
        }
    }
}

impl BaselineRegistry for RestoreFile {
    fn unrestored(&self, target: &str) -> Result<Vec<BaselineRecord>, String> {
        Ok(self.records()?.into_iter().filter(|record| record.target == target && !record.is_restored).collect())
    }

    fn find(&self, address: &Address) -> Result<Option<BaselineRecord>, String> {
        Ok(self.records()?.into_iter().find(|record| record.address == *address))
    }

    fn save(&self, record: &BaselineRecord) -> Result<(), String> {
        self.change(|records| {
            let mut record = record.clone();
            if let Some(earlier) = records.iter().find(|one| one.address == record.address) {
                record.baseline.keep(&earlier.baseline);
            }
            records.retain(|one| one.address != record.address);
            records.push(record);
        })
    }
}

#[cfg(test)]
mod tests {
    use keysweep_engine::{Baseline, Parameter, RecordedTimes, stale::CycleSetting};

    use super::*;

    fn record(port: u16, effort: u8) -> BaselineRecord {
        let mut baseline = Baseline::of(CycleSetting { effort: 1, hz: 10 });
        baseline.add(Parameter::Effort, u32::from(effort));
        BaselineRecord {
            target: format!("redis://one:{port}"),
            address: Address::tcp("one", port),
            run_id: "abc".into(),
            is_restored: false,
            times: RecordedTimes::default(),
            baseline,
        }
    }

    #[test]
    fn a_record_replaces_that_of_the_same_server_and_no_other() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = RestoreFile::in_folder(&folder.path().join("data")).expect("a file");
        assert_eq!(file.records(), Ok(Vec::new()));
        for one in [record(1, 4), record(2, 4), record(1, 7)] {
            file.save(&one).expect("saved");
        }
        assert_eq!(file.records(), Ok(vec![record(2, 4), record(1, 7)]));
        assert_eq!(file.find(&Address::tcp("one", 1)), Ok(Some(record(1, 7))));
        file.remove(&Address::tcp("one", 2)).expect("removed");
        assert_eq!(file.records(), Ok(vec![record(1, 7)]));
    }

    #[test]
    fn the_file_adds_what_it_alone_has_recorded_to_the_records_of_a_store() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = RestoreFile::in_folder(folder.path()).expect("a file");
        let of_another = BaselineRecord { target: "redis://another".into(), ..record(3, 2) };
        for one in [record(1, 7), record(2, 7), of_another] {
            file.save(&one).expect("saved");
        }
        let stored = BaselineRecord { target: "redis://earlier".into(), ..record(1, 4) };
        let (found, unread) = file.beside(vec![stored], "redis://one:2").expect("read");
        assert_eq!(unread, None);
        let known: Vec<_> = found.iter().map(|one| (one.address.to_string(), &one.baseline.effort.written)).collect();
        assert_eq!(known, [("one:1".into(), &vec![7, 4]), ("one:2".into(), &vec![7])]);
    }

    #[test]
    fn one_holder_at_a_time_has_a_server() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = RestoreFile::in_folder(folder.path()).expect("a file");
        let process =
            |address: &str, run_id: &str| ServerProcess { address: address.to_owned(), run_id: run_id.to_owned() };
        let server = process("10.0.0.5:6379", "abc");
        let first = file.reserve(&server).expect("reserved");
        let refused = file.reserve(&server).err().expect("taken").to_string();
        assert!(refused.contains("another keysweep") && refused.contains("holds this server"), "{refused}");
        for (address, run_id) in [("10.0.0.6:6379", "abc"), ("10.0.0.5:6379", "def"), ("/run/redis/a.sock", "")] {
            assert!(file.reserve(&process(address, run_id)).is_ok(), "another server: {address}, {run_id}");
        }
        drop(first);
        assert!(file.reserve(&server).is_ok());
        let long = process(&"a".repeat(300), &"../".repeat(100));
        assert!(file.reserve(&long).is_ok());
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0, "no lock is left");
    }

    #[test]
    fn a_written_value_in_a_record_is_never_replaced_as_the_servers_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = RestoreFile::in_folder(folder.path()).expect("a file");
        file.save(&record(1, 4)).expect("saved");
        let mut baseline = Baseline::of(CycleSetting { effort: 4, hz: 10 });
        baseline.add(Parameter::Effort, 7);
        file.save(&BaselineRecord { baseline, ..record(1, 4) }).expect("saved");
        let found = file.find(&Address::tcp("one", 1)).expect("read").expect("a record");
        assert_eq!((found.baseline.setting().effort, found.baseline.effort.written), (1, vec![4, 7]));
    }

    #[test]
    fn processes_that_record_at_the_same_time_lose_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = RestoreFile::in_folder(folder.path()).expect("a file");
        std::thread::scope(|scope| {
            for port in 1..9 {
                let file = file.clone();
                scope.spawn(move || file.save(&record(port, 4)).expect("saved"));
            }
        });
        assert_eq!(file.records().map(|records| records.len()), Ok(8));
    }

    #[test]
    fn a_file_that_is_none_is_named_and_left() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = RestoreFile::in_folder(folder.path()).expect("a file");
        for (text, part) in [("{", "mend it"), (r#"{"version":2,"records":[]}"#, "version 2")] {
            fs::write(file.path(), text).expect("written");
            let error = file.save(&record(1, 4)).expect_err(text);
            assert!(error.contains(part) && error.contains("restore.json"), "{error}");
            assert_eq!(fs::read_to_string(file.path()).expect("still there"), text);
        }
    }
}
