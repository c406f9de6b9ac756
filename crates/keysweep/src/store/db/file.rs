//! The SQLite file that is open, compared with the one at its path, and its log. SQLite goes on writing to a file that was removed
//! or replaced, where no later start finds what it wrote.

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::store::error::StoreError;

/// The begin of every SQLite file.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Length of the header, bytes.
const HEADER: usize = 100;

/// The file of a store. Stays open as long as the store: when a process closes any descriptor of a file, the system drops all
/// of the process's locks on it, SQLite's among them. The next process to close the database would then delete the log that
/// this one goes on writing to.
#[derive(Debug, Clone)]
pub struct OpenFile {
    path: PathBuf,
    file: Arc<File>,
    /// Greatest length that the file was seen with, bytes.
    longest: Arc<AtomicU64>,
    log_path: PathBuf,
    /// The log that the writing connection has open; `None` before there is one.
    log: Arc<Mutex<Option<Identity>>>,
}

/// Device and inode of a file.
type Identity = (u64, u64);

fn identity(metadata: &fs::Metadata) -> Identity {
    (metadata.dev(), metadata.ino())
}

impl OpenFile {
    /// Opens the file at this path. Logs when every user of this machine can read it.
    pub fn at(path: &Path) -> Result<Self, StoreError> {
        let opened = File::open(path).and_then(|file| file.metadata().map(|metadata| (file, metadata)));
        let (file, metadata) = opened.map_err(|error| unavailable(path, &error.to_string()))?;
        if let Some(warning) = exposure(path, metadata.mode()) {
            tracing::warn!("{warning}");
        }
        let longest = Arc::new(AtomicU64::new(metadata.len()));
        // SQLite follows symbolic links to the file that its log is beside.
        let mut log_path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
        log_path.push("-wal");
        let (log_path, log) = (log_path.into(), Arc::default());
        Ok(Self { path: path.to_owned(), file: Arc::new(file), longest, log_path, log })
    }

    /// Checks that the file is still at its path, and that it was not truncated. Opens and closes nothing.
    pub fn check(&self) -> Result<(), StoreError> {
        let failed = |cause: &str| Err(unavailable(&self.path, cause));
        // Read before the length: another check may see the file grow meanwhile.
        let longest = self.longest.load(Ordering::Acquire);
        let Ok(at_path) = fs::metadata(&self.path) else { return failed("was removed, or cannot be read") };
        let Ok(metadata) = self.file.metadata() else { return failed("cannot be read") };
        if identity(&at_path) != identity(&metadata) {
            return failed("was replaced while it was open");
        }
        let mut header = [0; HEADER];
        if self.file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(MAGIC) {
            return failed("was truncated or overwritten");
        }
        let present = metadata.len();
        if present >= longest {
            self.longest.fetch_max(present, Ordering::AcqRel);
            return Ok(());
        }
        // The header alone proves nothing: a checkpoint writes it before the pages that lengthen the file, and stays there for as
        // long as a reader needs the log. A file that another program has vacuumed is shorter, and as long as its header says.
        if present < length(&header) {
            return failed("was truncated");
        }
        let _ = self.longest.compare_exchange(longest, present, Ordering::AcqRel, Ordering::Relaxed);
        Ok(())
    }

    /// Notes the log that a new writing connection has just opened. `is_open`: whether it has.
    pub fn note_log(&self, is_open: bool) {
        let log = self.log_at_path().filter(|_| is_open);
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = log;
    }

    /// Checks that the log at its path is the one that was noted. The writing connection keeps it as long as it is open.
    pub fn check_log(&self) -> Result<(), StoreError> {
        let noted = *self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.is_none() || self.log_at_path() == noted {
            return Ok(());
        }
        Err(StoreError::Unavailable(format!(
            "the log {} of the database was removed or replaced while it was open; stop the service with SIGTERM, which writes \
             what the log holds to the database file, and start it again",
            self.log_path.display()
        )))
    }

    fn log_at_path(&self) -> Option<Identity> {
        fs::metadata(&self.log_path).ok().as_ref().map(identity)
    }
}

/// Returns the length of a file by its header: pages times their size. Pages that only the log holds are not among them.
fn length(header: &[u8; HEADER]) -> u64 {
    let page_size = match u16::from_be_bytes([header[16], header[17]]) {
        1 => 65_536,
        size => u64::from(size),
    };
    u64::from(u32::from_be_bytes([header[28], header[29], header[30], header[31]])) * page_size
}

fn unavailable(path: &Path, cause: &str) -> StoreError {
    StoreError::Unavailable(format!(
        "the database file {} {cause}; stop the service, put the backup back, and start it again",
        path.display()
    ))
}

/// Returns the warning where others than the owner and the group can read the file.
fn exposure(path: &Path, mode: u32) -> Option<String> {
    (mode & 0o007 != 0).then(|| {
        let path = path.display();
        format!("the database file {path} can be read by every user (mode {:03o}); run: chmod 600 {path}", mode & 0o777)
    })
}

#[cfg(test)]
mod tests {
    use sqlx::{ConnectOptions, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

    use super::*;
    use crate::{model::Project, store::Store};

    async fn store(folder: &Path) -> (Store, PathBuf) {
        let path = folder.join("keysweep.db");
        (Store::open_sqlite(&path).await.expect("a store"), path)
    }

    fn project(id: u32) -> Project {
        let id = format!("{id:032}");
        Project { name: id.clone(), id, created_at: jiff::Timestamp::UNIX_EPOCH }
    }

    /// Damages the file of an open store. Then it must neither be ready nor accept a write, until the file is put back.
    async fn refuses_writes(cause: &str, damage: impl Fn(&Path)) {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (store, path) = store(folder.path()).await;
        store.add_project(&project(1)).await.expect("added");
        store.ping().await.expect("it is ready");
        let kept = path.with_extension("kept");
        fs::hard_link(&path, &kept).expect("linked");
        let bytes = fs::read(&path).expect("read");
        damage(&path);
        let (ready, added) = (store.ping().await, store.add_project(&project(2)).await);
        for error in [ready.expect_err("not ready"), added.expect_err("a write that would be lost")] {
            let sentence = error.to_string();
            assert!(sentence.contains(cause) && sentence.contains("put the backup back"), "{sentence}");
        }
        fs::write(&kept, bytes).expect("written");
        fs::rename(&kept, &path).or_else(|_| fs::copy(&kept, &path).map(drop)).expect("put back");
        store.ping().await.expect("it is ready again");
    }

    #[tokio::test]
    async fn a_file_that_is_truncated_removed_or_replaced_takes_no_writes() {
        refuses_writes("was removed", |path| fs::remove_file(path).expect("removed")).await;
        refuses_writes("was truncated", |path| {
            File::options().write(true).open(path).and_then(|file| file.set_len(0)).expect("truncated");
        })
        .await;
        refuses_writes("was truncated", |path| {
            File::options().write(true).open(path).and_then(|file| file.set_len(4_096)).expect("truncated");
        })
        .await;
        refuses_writes("was replaced", |path| {
            let other = path.with_extension("other");
            fs::copy(path, &other).expect("copied");
            fs::rename(&other, path).expect("replaced");
        })
        .await;
    }

    async fn connect(path: &Path) -> SqliteConnection {
        SqliteConnectOptions::new().filename(path).connect().await.expect("a connection")
    }

    #[tokio::test]
    async fn a_checkpoint_that_a_reader_delays_leaves_a_healthy_database() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (store, path) = store(folder.path()).await;
        let (mut writer, mut reader) = (connect(&path).await, connect(&path).await);
        for statement in [
            "CREATE TABLE filler (id INTEGER PRIMARY KEY, bytes BLOB)",
            "INSERT INTO filler (bytes) SELECT zeroblob(3000) FROM (VALUES (1), (2), (3), (4), (5), (6))",
        ] {
            writer.execute(statement).await.expect("written");
        }
        reader.execute("BEGIN").await.expect("begun");
        reader.fetch_one("SELECT COUNT(*) FROM filler").await.expect("a snapshot");
        // The last page is in the log once more, behind the snapshot: the checkpoint writes all pages but that one.
        for statement in [
            "UPDATE filler SET bytes = zeroblob(2999) WHERE id = (SELECT MAX(id) FROM filler)",
            "PRAGMA wal_checkpoint(PASSIVE)",
        ] {
            writer.execute(statement).await.expect("written");
        }
        let opened = OpenFile::at(&path).expect("a file");
        let mut header = [0; HEADER];
        opened.file.read_exact_at(&mut header, 0).expect("a header");
        let present = fs::metadata(&path).expect("a file").len();
        assert!(present < length(&header), "{present} bytes: the header is ahead of the file");

        store.add_project(&project(1)).await.expect("a healthy database takes writes");
        store.ping().await.expect("it is ready");
        reader.execute("ROLLBACK").await.expect("ended");
        writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").await.expect("checkpointed");
        store.add_project(&project(2)).await.expect("a longer file");
        store.ping().await.expect("it is ready");
    }

    #[tokio::test]
    async fn a_database_that_was_vacuumed_by_another_program_is_shorter_and_healthy() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (store, path) = store(folder.path()).await;
        let mut other = connect(&path).await;
        let size = || fs::metadata(&path).expect("a file").len();
        for statement in ["CREATE TABLE filler AS SELECT zeroblob(100000) AS bytes", "PRAGMA wal_checkpoint(TRUNCATE)"]
        {
            other.execute(statement).await.expect("written");
        }
        store.ping().await.expect("it is ready");
        let before = size();
        for statement in ["DROP TABLE filler", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
            other.execute(statement).await.expect("written");
        }
        assert!(size() < before, "{before} bytes before");
        store.add_project(&project(1)).await.expect("a healthy database takes writes");
        store.ping().await.expect("it is ready");
        // What is cut off afterwards is missed.
        File::options().write(true).open(&path).and_then(|file| file.set_len(4_096)).expect("truncated");
        store.add_project(&project(2)).await.expect_err("a write that would be lost");
    }

    #[tokio::test]
    async fn a_removed_log_takes_no_writes_and_what_it_held_outlives_a_stop() {
        let folder = tempfile::TempDir::new().expect("a folder");
        let (store, path) = store(folder.path()).await;
        store.add_project(&project(1)).await.expect("added");
        store.ping().await.expect("it is ready");
        let log = folder.path().join("keysweep.db-wal");
        assert!(fs::metadata(&log).expect("a log").len() > 0);
        fs::remove_file(&log).expect("removed");
        let (ready, added) = (store.ping().await, store.add_project(&project(2)).await);
        for error in [ready.expect_err("not ready"), added.expect_err("a write that would be lost")] {
            let sentence = error.to_string();
            assert!(
                sentence.contains("-wal of the database was removed") && sentence.contains("SIGTERM"),
                "{sentence}"
            );
        }
        fs::write(&log, "").expect("another log");
        store.add_project(&project(2)).await.expect_err("a write to a log that is not at its path");
        store.close().await;
        let store = Store::open_sqlite(&path).await.expect("a store");
        assert_eq!(store.projects().await.expect("read"), [project(1)]);
        store.add_project(&project(2)).await.expect("the new log is the right one");
        store.ping().await.expect("it is ready again");
    }

    #[test]
    fn a_file_that_every_user_can_read_is_named_with_its_remedy() {
        let warning = exposure(Path::new("/var/lib/keysweep.db"), 0o100_644).expect("a warning");
        assert!(warning.contains("mode 644") && warning.contains("chmod 600 /var/lib/keysweep.db"), "{warning}");
        assert_eq!(exposure(Path::new("/var/lib/keysweep.db"), 0o100_640), None);
    }
}
