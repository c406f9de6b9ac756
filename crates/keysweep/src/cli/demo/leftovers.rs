//! What the demo has put on the machine, and that it leaves nothing of it there, whichever way it ends.

use std::{
    fs, io,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tempfile::TempDir;

/// How often a folder is emptied into which somebody still writes.
const EMPTYINGS: usize = 10;

/// A folder and a server. Both are gone when this is.
#[derive(Default)]
pub struct Leftovers(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    folder: Option<TempDir>,
    server: Option<Child>,
}

impl Leftovers {
    /// Makes the folder.
    pub fn make_folder(&self) -> io::Result<PathBuf> {
        let mut held = self.held();
        let folder = tempfile::Builder::new().prefix("keysweep-demo-").tempdir()?;
        Ok(held.folder.insert(folder).path().to_owned())
    }

    /// Starts the server.
    pub fn start_server(&self, command: &mut Command) -> io::Result<()> {
        // Under the lock: between its start and its entry nobody may clear away.
        let mut held = self.held();
        held.server = Some(command.spawn()?);
        Ok(())
    }

    /// Whether the server has ended by itself, and how.
    pub fn server_ended(&self) -> io::Result<Option<ExitStatus>> {
        self.held().server.as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// Clears everything away.
    pub fn clear(&self) {
        self.held().clear();
    }

    /// Clears everything away and lets nothing new come up: to be called by somebody who then ends the process.
    pub fn clear_for_good(&self) -> impl FnOnce() + Send + 'static {
        let held = Arc::clone(&self.0);
        move || {
            let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
            held.clear();
            // Whoever wants to start something waits for this lock, and in vain.
            std::mem::forget(held);
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    fn clear(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Errors mean that it has ended already. There is nothing in it worth saving.
            let _ = server.kill();
            let _ = server.wait();
        }
        if let Some(folder) = self.folder.take() {
            let path = folder.keep();
            for _ in 0..EMPTYINGS {
                match fs::remove_dir_all(&path) {
                    // A file came up while the others were removed.
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                    _ => return,
                }
            }
        }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.clear();
    }
}
