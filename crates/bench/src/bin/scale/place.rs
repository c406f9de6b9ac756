//! A database that keeps what it is told through a power cut, with a fleet in it, and the replicas that work on it.

use std::{env, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use keysweep::{
    fleet::new_id,
    model::{AutoScan, Instance, Project},
    store::{SharedStore, postgres::PostgresStore, sqlite::SqliteStore},
};
use keysweep_harness::{Installation, Postgres, Service};
use tokio::runtime::Runtime;

/// Instances that are registered side by side.
const AT_ONCE: usize = 16;

/// Where a fleet is kept.
pub struct Place {
    /// SQLite or PostgreSQL, for the tables.
    pub name: &'static str,
    /// The store, beside the replicas that use it.
    pub store: SharedStore,
    /// Where the verbs of the store run.
    pub runtime: Runtime,
    /// The server, where there is one.
    pub database: Option<Postgres>,
    installation: Installation,
    project: Project,
}

impl Place {
    /// An empty one on SQLite.
    pub fn sqlite() -> Result<Self> {
        let (runtime, installation) = (Runtime::new()?, Installation::new(binary()?));
        let store = runtime.block_on(SqliteStore::open(&installation.database()))?;
        Self::with("SQLite", Arc::new(store), runtime, None, installation)
    }

    /// An empty one on PostgreSQL.
    pub fn postgres() -> Result<Self> {
        let (runtime, database) = (Runtime::new()?, Postgres::start_durable());
        let installation = Installation::on_postgres(binary()?, &database);
        let store = runtime.block_on(PostgresStore::open(&database.url()))?;
        Self::with("PostgreSQL", Arc::new(store), runtime, Some(database), installation)
    }

    fn with(
        name: &'static str,
        store: SharedStore,
        runtime: Runtime,
        database: Option<Postgres>,
        installation: Installation,
    ) -> Result<Self> {
        let project = Project { id: new_id(), name: "shop".into(), created_at: Timestamp::now() };
        runtime.block_on(store.add_project(&project))?;
        Ok(Self { name, store, runtime, database, installation, project })
    }

    /// Registers so many instances of this URL; returns them.
    pub fn register(&self, number: usize, url: &str, window: Option<&str>) -> Result<Vec<Instance>> {
        self.register_each(&vec![url.to_owned(); number], window)
    }

    /// Registers an instance of each of these URLs; returns them.
    pub fn register_each(&self, urls: &[String], window: Option<&str>) -> Result<Vec<Instance>> {
        let urls = urls.iter().enumerate();
        let instances: Vec<Instance> = urls.map(|(number, url)| instance(&self.project, number, url, window)).collect();
        self.each(&instances, |store, instance| async move { Ok(store.add_instance(&instance).await?) })?;
        Ok(instances)
    }

    /// Has each scanned every hour; the first runs are due one after the other, from `first` on.
    pub fn schedule(&self, instances: &[Instance], first: Timestamp, apart: Duration) -> Result<()> {
        let plans: Vec<AutoScan> = (0u32..)
            .zip(instances)
            .map(|(number, instance)| AutoScan {
                instance_id: instance.id.clone(),
                enabled: true,
                first_scan_at: Some(first + apart * number),
                interval: Duration::from_secs(3_600),
                timeout: Duration::from_secs(600),
                scan_keys_count: 1_000,
                updated_at: Timestamp::now(),
            })
            .collect();
        self.each(&plans, |store, plan| async move {
            store.set_auto_scan(None, &plan).await?;
            Ok(())
        })
    }

    /// Does something for each item, several at a time.
    fn each<T: Clone, F>(&self, items: &[T], verb: impl Fn(SharedStore, T) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        for batch in items.chunks(AT_ONCE) {
            let verbs: Vec<_> =
                batch.iter().map(|item| self.runtime.spawn(verb(self.store.clone(), item.clone()))).collect();
            for verb in verbs {
                self.runtime.block_on(verb)??;
            }
        }
        Ok(())
    }

    /// One more replica of the service, which takes part in so many sweeps a host.
    pub fn serve(&self, per_host: u32) -> Service {
        self.installation.serve(&["--no-auth", "--sweeps-per-host", &per_host.to_string()])
    }

    /// Processor time that the database's own processes have used; none where it is a part of ours.
    pub fn database_cpu(&self) -> Duration {
        self.database.as_ref().map_or(Duration::ZERO, Postgres::cpu)
    }
}

fn binary() -> Result<std::path::PathBuf> {
    let binary = env::current_exe()?.with_file_name("keysweep");
    binary.exists().then_some(binary).context("build it first: cargo build --release -p keysweep")
}

fn instance(project: &Project, number: usize, url: &str, window: Option<&str>) -> Instance {
    Instance {
        window: window.map(str::to_owned),
        window_binds_manual: window.is_some(),
        ..Instance::new(new_id(), project.id.clone(), format!("cache{number}"), url.to_owned(), Timestamp::now())
    }
}
