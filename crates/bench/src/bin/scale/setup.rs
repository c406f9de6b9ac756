//! A durable database with a fleet in it, and the replicas of the service that use it.

use std::{env, time::Duration};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use keysweep::{
    model::{AutoScan, Instance, NewTask, Project, ScanType, Stored},
    random::new_id,
    store::Store,
};
use keysweep_harness::{Installation, Postgres, Service, Signer};
use tokio::runtime::Runtime;

/// Number of store calls in flight while a fleet is set up.
const CONCURRENCY: usize = 16;

/// A database with one project.
pub struct Setup {
    /// `SQLite` or `PostgreSQL`, for the tables.
    pub name: &'static str,
    /// The store, shared with the replicas.
    pub store: Store,
    /// Runtime of the store's operations.
    pub runtime: Runtime,
    /// The PostgreSQL server; `None` for SQLite.
    pub database: Option<Postgres>,
    /// The project.
    pub project: Project,
    installation: Installation,
}

impl Setup {
    /// Creates an empty SQLite database.
    pub fn sqlite() -> Result<Self> {
        let (runtime, installation) = (Runtime::new()?, Installation::new(binary()?));
        let store = runtime.block_on(Store::open_sqlite(&installation.database()))?;
        Self::with("SQLite", store, runtime, None, installation)
    }

    /// Starts an empty PostgreSQL server with fsync.
    pub fn postgres() -> Result<Self> {
        let (runtime, database) = (Runtime::new()?, Postgres::start_durable());
        let installation = Installation::on_postgres(binary()?, &database);
        let store = runtime.block_on(Store::open_postgres(&database.url()))?;
        Self::with("PostgreSQL", store, runtime, Some(database), installation)
    }

    fn with(
        name: &'static str,
        store: Store,
        runtime: Runtime,
        database: Option<Postgres>,
        installation: Installation,
    ) -> Result<Self> {
        let project = Project { id: new_id(), name: "shop".into(), created_at: Timestamp::now() };
        runtime.block_on(store.add_project(&project))?;
        Ok(Self { name, store, runtime, database, project, installation })
    }

    /// Registers this number of instances of one URL and returns them.
    pub fn register(&self, number: usize, url: &str, window: Option<&str>) -> Result<Vec<Instance>> {
        self.register_each(&vec![url.to_owned(); number], window)
    }

    /// Registers one instance per URL and returns them.
    pub fn register_each(&self, urls: &[String], window: Option<&str>) -> Result<Vec<Instance>> {
        self.register_in(&self.project, urls, window)
    }

    /// Registers one instance per URL in a project and returns them.
    pub fn register_in(&self, project: &Project, urls: &[String], window: Option<&str>) -> Result<Vec<Instance>> {
        let urls = urls.iter().enumerate();
        let instances: Vec<Instance> = urls.map(|(number, url)| instance(project, number, url, window)).collect();
        self.each(&instances, |store, instance| async move { Ok(store.add_instance(&instance).await?) })?;
        Ok(instances)
    }

    /// Adds another project.
    pub fn add_project(&self, name: &str) -> Result<Project> {
        let project = Project { id: new_id(), name: name.to_owned(), created_at: Timestamp::now() };
        self.runtime.block_on(self.store.add_project(&project))?;
        Ok(project)
    }

    /// Creates a task of each instance, without the service.
    pub fn create_tasks(&self, instances: &[Instance]) -> Result<()> {
        self.each(instances, |store, instance| async move {
            let new = NewTask {
                id: new_id(),
                project_id: instance.project_id,
                instance_id: instance.id,
                scan_type: ScanType::Manual,
                triggered_by: None,
                timeout: Duration::from_secs(600),
                keys_per_second: None,
                due_at: None,
                hosts: vec!["127.0.0.1:1".into()],
                history_retention: 1_000,
            };
            store.create_task(&new).await?;
            Ok(())
        })
    }

    /// Adds a user with an access key to the project.
    pub fn signer(&self) -> Signer {
        self.installation.admin(&["user", "add", "robot", "--project", &self.project.id, "--role", "admin"]);
        let key = self.installation.admin(&["access-key", "add", "--user", "robot"]);
        let text = |field: &str| key[field].as_str().unwrap_or_default().to_owned();
        Signer { access: text("access"), secret: text("secret") }
    }

    /// Enables an hourly auto-scan of each instance; the first runs are due one after the other, from `first` on.
    pub fn schedule(&self, instances: &[Instance], first: Timestamp, apart: Duration) -> Result<()> {
        let plans: Vec<AutoScan> = (0u32..)
            .zip(instances)
            .map(|(number, instance)| AutoScan {
                instance_id: instance.id.clone(),
                enabled: true,
                first_scan_at: Some(first + apart * number),
                first_scan_text: None,
                interval: Duration::from_secs(3_600),
                timeout: Duration::from_secs(600),
                scan_keys_count: 1_000,
                target: None,
                gathering: None,
                updated_at: Timestamp::now(),
            })
            .collect();
        self.each(&plans, |store, plan| async move {
            store.set_auto_scan(None, &plan).await?;
            Ok(())
        })
    }

    /// Runs a store operation for each item, [`CONCURRENCY`] at a time.
    fn each<T: Clone, F>(&self, items: &[T], verb: impl Fn(Store, T) -> F) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        for batch in items.chunks(CONCURRENCY) {
            let verbs: Vec<_> =
                batch.iter().map(|item| self.runtime.spawn(verb(self.store.clone(), item.clone()))).collect();
            for verb in verbs {
                self.runtime.block_on(verb)??;
            }
        }
        Ok(())
    }

    /// Starts a replica of the service with this per-host concurrency limit.
    pub fn serve(&self, per_host: u32) -> Service {
        self.installation.serve(&["--no-auth", "--host-concurrency", &per_host.to_string()])
    }

    /// Starts a replica that requires credentials. This machine counts as a proxy: one client has fewer connections than this
    /// program opens.
    pub fn serve_authenticated(&self, per_host: u32) -> Service {
        self.installation.serve(&["--trusted-proxies", "127.0.0.1", "--host-concurrency", &per_host.to_string()])
    }

    /// Returns the CPU time of the database's processes; zero for SQLite, which runs in the service's process.
    pub fn database_cpu(&self) -> Duration {
        self.database.as_ref().map_or(Duration::ZERO, Postgres::cpu)
    }
}

fn binary() -> Result<std::path::PathBuf> {
    let binary = env::current_exe()?.with_file_name("keysweep");
    binary.exists().then_some(binary).context("keysweep is not built: run cargo build --release -p keysweep")
}

fn instance(project: &Project, number: usize, url: &str, window: Option<&str>) -> Instance {
    Instance {
        window: window.map(Stored::read),
        window_binds_manual: window.is_some(),
        ..Instance::new(new_id(), project.id.clone(), format!("cache{number}"), url.to_owned(), Timestamp::now())
    }
}
