//! An installation in a folder of its own, opened as a process does.

use std::{fs, path::Path, sync::Arc};

use keysweep::{
    identity::Identity,
    instances::{AllowedTargets, InstanceError, Instances, NewInstance},
    model::Instance,
    secrets::{Vault, VaultError},
    store::Store,
};
use tempfile::TempDir;

/// A store, its key file and the folder of both.
pub struct Installation {
    folder: TempDir,
}

/// What an installation serves.
pub struct Opened {
    pub store: Store,
    pub identity: Identity,
    pub instances: Instances,
}

impl Opened {
    /// Adds an instance to the project of this name.
    pub async fn add(&self, project: &str, new: NewInstance<'_>) -> Result<Instance, InstanceError> {
        let project = self.identity.project(project).await.expect("a project");
        self.instances.add(&project.id, new).await
    }

    /// Returns the instances of the project of this name.
    pub async fn list(&self, project: &str) -> Vec<Instance> {
        let project = self.identity.project(project).await.expect("a project");
        self.instances.list(&project.id).await.expect("read").into_parts().0
    }
}

impl Installation {
    /// In a folder of its own.
    pub fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder") }
    }

    /// Returns the path of a file in the folder.
    pub fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// Opens the installation as a process does at its start.
    pub async fn try_open(&self) -> Result<Opened, VaultError> {
        let store = Store::open_sqlite(&self.path("store.db")).await.expect("a store");
        let vault = Arc::new(Vault::of_store(&store, &self.path("store.db.key")).await?);
        let identity = Identity::new(store.clone(), Arc::clone(&vault));
        let instances = Instances::new(store.clone(), vault, AllowedTargets::default());
        Ok(Opened { store, identity, instances })
    }

    /// Opens an installation that must open.
    pub async fn open(&self) -> Opened {
        self.try_open().await.expect("an installation")
    }

    /// Returns everything on disk except the key file.
    pub fn contents(&self) -> Vec<u8> {
        let entries = fs::read_dir(self.folder.path()).expect("readable").map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.extension().is_none_or(|it| it != "key")).flat_map(read).collect()
    }
}

/// Returns the contents of a file.
pub fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path).expect("readable")
}

/// Whether the text occurs in the bytes.
pub fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
