//! Resources of the demo on this machine, and their removal on every way the demo can end.

use std::{
    fs, io,
    path::PathBuf,
    process::{Child, Command, ExitStatus},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tempfile::TempDir;

/// How often the removal of a folder is retried while the demo still writes to it.
const REMOVAL_ATTEMPTS: usize = 10;

/// A folder and a server process. Both are removed on drop.
#[derive(Default)]
pub struct Cleanup(Arc<Mutex<Resources>>);

#[derive(Default)]
struct Resources {
    folder: Option<TempDir>,
    server: Option<Child>,
}

impl Cleanup {
    /// Creates the folder.
    ///
    /// # Errors
    /// The folder could not be created.
    pub fn make_folder(&self) -> io::Result<PathBuf> {
        let mut resources = self.lock();
        let folder = tempfile::Builder::new().prefix("keysweep-demo-").tempdir()?;
        Ok(resources.folder.insert(folder).path().to_owned())
    }

    /// Starts the server.
    ///
    /// # Errors
    /// The process could not be started.
    pub fn start_server(&self, command: &mut Command) -> io::Result<()> {
        // The lock is held from start to registration, so that a concurrent cleanup cannot miss the process.
        let mut resources = self.lock();
        resources.server = Some(command.spawn()?);
        Ok(())
    }

    /// Returns the exit status of the server if it has exited.
    ///
    /// # Errors
    /// The process could not be queried.
    pub fn server_ended(&self) -> io::Result<Option<ExitStatus>> {
        self.lock().server.as_mut().map_or(Ok(None), Child::try_wait)
    }

    /// Removes everything now.
    pub fn run(&self) {
        self.lock().remove();
    }

    /// Returns a closure that removes everything and prevents new resources, for a caller that then exits the process.
    pub fn final_run(&self) -> impl FnOnce() + Send + 'static {
        let resources = Arc::clone(&self.0);
        move || {
            let mut resources = resources.lock().unwrap_or_else(PoisonError::into_inner);
            resources.remove();
            // The lock stays held: a thread that is about to create a resource blocks until the process exits.
            std::mem::forget(resources);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Resources> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resources {
    fn remove(&mut self) {
        if let Some(mut server) = self.server.take() {
            // An error means that the process has exited already. Its data is disposable.
            let _ = server.kill();
            let _ = server.wait();
        }
        if let Some(folder) = self.folder.take() {
            let path = folder.keep();
            for _ in 0..REMOVAL_ATTEMPTS {
                match fs::remove_dir_all(&path) {
                    // The demo created a file during the removal.
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                    _ => return,
                }
            }
        }
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        self.run();
    }
}
