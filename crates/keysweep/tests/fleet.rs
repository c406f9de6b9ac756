//! Identity and instances over a real store: what operators register, and that secrets stay secret.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use keysweep::{
    identity::{Identity, IdentityError},
    instances::{AllowedTargets, InstanceError, Instances, NewInstance},
    model::{AutoScan, Instance, InstanceStats, Role, Stored, is_id, now},
    secrets::{Vault, VaultError},
    store::Store,
    task::{TaskError, Tasks},
};
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::runtime::Handle;

struct Installation {
    folder: TempDir,
}

/// What an installation serves.
struct Opened {
    store: Store,
    identity: Identity,
    instances: Instances,
}

impl Opened {
    /// Adds an instance to the project of this name.
    async fn add(&self, project: &str, new: NewInstance<'_>) -> Result<Instance, InstanceError> {
        let project = self.identity.project(project).await.expect("a project");
        self.instances.add(&project.id, new).await
    }

    /// Returns the instances of the project of this name.
    async fn list(&self, project: &str) -> Vec<Instance> {
        let project = self.identity.project(project).await.expect("a project");
        self.instances.list(&project.id).await.expect("read")
    }
}

impl Installation {
    fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder") }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn try_open(&self) -> Result<Opened, VaultError> {
        let store = Store::open_sqlite(&self.path("store.db")).await.expect("a store");
        let vault = Arc::new(Vault::of_store(&store, &self.path("store.db.key")).await?);
        let identity = Identity::new(store.clone(), Arc::clone(&vault));
        let instances = Instances::new(store.clone(), vault, AllowedTargets::default());
        Ok(Opened { store, identity, instances })
    }

    async fn open(&self) -> Opened {
        self.try_open().await.expect("an installation")
    }

    /// Returns everything on disk except the key file.
    fn contents(&self) -> Vec<u8> {
        let entries = fs::read_dir(self.folder.path()).expect("readable").map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.extension().is_none_or(|it| it != "key")).flat_map(read).collect()
    }
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    fs::read(path).expect("readable")
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn a_password_is_taken_out_of_the_url_and_stored_encrypted() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let instance = opened
        .add(
            "shop",
            NewInstance {
                name: "cache",
                url: "redis://sweeper:correct%20horse@cache.example:6380/2",
                id: None,
                ..NewInstance::default()
            },
        )
        .await
        .expect("added");
    assert!(is_id(&instance.id));
    assert_eq!((instance.url.text(), instance.username.as_deref()), ("redis://cache.example:6380/2", Some("sweeper")));
    assert_eq!((instance.pace.text(), instance.paused), ("normal", false));

    let seen = opened.instances.get(&instance.project_id, &instance.id).await.expect("read").expect("an instance");
    assert_eq!(seen, instance);
    let target = opened.instances.target(&seen).expect("a target");
    assert_eq!((target.seed().to_string().as_str(), target.database), ("cache.example:6380", Some(2)));
    assert_eq!(target.credentials.username.as_deref(), Some("sweeper"));
    assert_eq!(target.credentials.password.as_ref().map(|it| it.expose_secret()), Some("correct horse"));

    let contents = installation.contents();
    assert!(holds(&contents, "cache.example"), "the instance is stored here");
    assert!(!holds(&contents, "correct horse") && !holds(&contents, "correct%20horse"));
    assert!(!format!("{seen:?}").contains("horse"));
}

#[tokio::test]
async fn a_password_moved_to_another_instance_is_not_decrypted() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let one = opened
        .add("shop", NewInstance { name: "one", url: "redis://:secret@h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let other = opened
        .add("shop", NewInstance { name: "other", url: "redis://h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let moved = Instance { password: one.password, ..other };
    let error = opened.instances.target(&moved).expect_err("moved");
    assert!(matches!(error, InstanceError::Vault(VaultError::Changed { .. })), "{error}");
}

#[tokio::test]
async fn an_instance_without_credentials_has_none() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let instance = opened
        .add("shop", NewInstance { name: "cache", url: "valkey://cache.example", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let credentials = opened.instances.credentials(&instance).expect("credentials");
    assert!(credentials.username.is_none() && credentials.password.is_none());
}

#[tokio::test]
async fn a_project_is_found_by_its_id_or_its_name() {
    let installation = Installation::new();
    let opened = installation.open().await;
    let id = "6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a12";
    let project = opened.identity.add_project("shop", Some(id)).await.expect("added");
    assert_eq!(project.id, id, "as it was given");
    // A name that equals another project's id does not hide that project.
    let namesake = opened.identity.add_project(id, None).await.expect("added");
    assert_eq!(opened.identity.project("shop").await.expect("found"), project);
    assert_eq!(opened.identity.project(id).await.expect("found"), project);
    assert_eq!(opened.identity.project(&namesake.id).await.expect("found"), namesake);
    assert_eq!(opened.identity.projects().await.expect("read").len(), 2);

    let instance = opened
        .add(id, NewInstance { name: "cache", url: "redis://h", id: Some(&"a".repeat(32)), ..NewInstance::default() })
        .await
        .expect("added");
    assert_eq!((instance.id.as_str(), instance.project_id.as_str()), ("a".repeat(32).as_str(), id));
    assert_eq!(opened.list("shop").await, [instance]);
    let error = opened.identity.project("absent").await.expect_err("absent").to_string();
    assert!(error.contains("\"absent\"") && error.contains("project list"), "{error}");
}

#[tokio::test]
async fn an_access_key_has_the_documented_form_and_its_secret_can_be_read_back() {
    let installation = Installation::new();
    let opened = installation.open().await;
    let project = opened.identity.add_project("shop", None).await.expect("added");
    let user = opened.identity.add_user("ada", "shop", Role::Operator, None).await.expect("added");
    let (access, secret) = opened.identity.add_access_key("ada").await.expect("added");
    let (other_access, other_secret) = opened.identity.add_access_key("ada").await.expect("added");
    assert_eq!((access.len(), secret.expose().len()), (20, 40));
    assert!(access.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()), "{access}");
    assert!(secret.expose().bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert!(access != other_access && secret.expose() != other_secret.expose());

    let holder = opened.identity.key_holder(&access).await.expect("read").expect("a holder");
    assert_eq!(holder.user, user);
    assert_eq!((holder.grants[0].project_id.as_str(), holder.grants[0].role), (project.id.as_str(), Role::Operator));
    assert_eq!(opened.identity.open_secret_key(&holder.key).expect("opens").expose(), secret.expose());
    assert!(opened.identity.key_holder("ABSENT").await.expect("read").is_none());
    assert!(!holds(&installation.contents(), secret.expose()));

    let error = opened.identity.add_access_key("bob").await.expect_err("no such user").to_string();
    assert!(error.contains("\"bob\"") && error.contains("user add"), "{error}");
    let error =
        opened.identity.add_user("bob", "absent", Role::Reader, None).await.expect_err("no such project").to_string();
    assert!(error.contains("\"absent\""), "{error}");
}

#[tokio::test]
async fn errors_name_the_field_its_value_and_the_remedy() {
    let installation = Installation::new();
    let opened = installation.open().await;
    let project = opened.identity.add_project("shop", None).await.expect("added");
    opened.identity.add_user("ada", "shop", Role::Reader, None).await.expect("added");
    let instance = opened
        .add("shop", NewInstance { name: "cache", url: "redis://h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let long = "x".repeat(65);
    let text = |error: IdentityError| error.to_string();
    let instance_text = |error: InstanceError| error.to_string();
    let errors = [
        (
            opened.identity.add_project("shop", None).await.map(drop).map_err(text),
            ["project", "name", "\"shop\"", "another name"],
        ),
        (
            opened.identity.add_project("s", Some(&project.id)).await.map(drop).map_err(text),
            ["project", "id", &project.id, "another id"],
        ),
        (
            opened.identity.add_user("ada", "shop", Role::Admin, None).await.map(drop).map_err(text),
            ["user", "name", "\"ada\"", "another name"],
        ),
        (
            opened
                .add("shop", NewInstance { name: "cache", url: "redis://h", id: None, ..NewInstance::default() })
                .await
                .map(drop)
                .map_err(instance_text),
            ["instance", "name", "\"cache\"", "another name"],
        ),
        (
            opened
                .add(
                    "shop",
                    NewInstance { name: "x", url: "redis://h", id: Some(&instance.id), ..NewInstance::default() },
                )
                .await
                .map(drop)
                .map_err(instance_text),
            ["instance", "id", &instance.id, "another id"],
        ),
        (
            opened.identity.add_project("", None).await.map(drop).map_err(text),
            ["project name", "\"\"", "1 to 64", "characters"],
        ),
        (
            opened.identity.add_project(" x", None).await.map(drop).map_err(text),
            ["project name", "\" x\"", "1 to 64", "spaces"],
        ),
        (
            opened.identity.add_user(&long, "shop", Role::Admin, None).await.map(drop).map_err(text),
            ["user name", &long, "1 to 64", "characters"],
        ),
        (
            opened
                .add("shop", NewInstance { name: "a\nb", url: "redis://h", id: None, ..NewInstance::default() })
                .await
                .map(drop)
                .map_err(instance_text),
            ["instance name", "\"a\\nb\"", "1 to 64", "control characters"],
        ),
        (
            opened
                .add("shop", NewInstance { name: "x", url: "redis://h", id: Some("42"), ..NewInstance::default() })
                .await
                .map(drop)
                .map_err(instance_text),
            ["instance id", "\"42\"", "32 hexadecimal digits", "UUID"],
        ),
    ];
    for (result, parts) in errors {
        let error = result.expect_err(parts[2]);
        for part in parts {
            assert!(error.contains(part), "{part:?} in: {error}");
        }
    }
    assert_eq!(opened.list("shop").await, [instance]);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_of_an_auto_scan_are_merged() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let new = NewInstance { name: "cache", url: "redis://h:1", ..NewInstance::default() };
    let instance = opened.add("shop", new).await.expect("added");
    let hourly = |before| Ok::<_, InstanceError>(AutoScan { interval: Duration::from_secs(3_600), ..before });
    let calls = AtomicU32::new(0);
    // Between the read and the write of this change, another one sets the interval.
    let kept = opened.instances.set_auto_scan(&instance, None, |before| {
        if calls.fetch_add(1, Ordering::Relaxed) == 0 {
            let other = opened.instances.set_auto_scan(&instance, None, hourly);
            tokio::task::block_in_place(|| Handle::current().block_on(other))?;
        }
        Ok::<_, InstanceError>(AutoScan { scan_keys_count: 20, ..before })
    });
    let kept = kept.await.expect("kept");
    assert_eq!((kept.interval, kept.scan_keys_count), (Duration::from_secs(3_600), 20));
    assert_eq!(calls.into_inner(), 2, "it was called again with the other change");
    assert_eq!(opened.instances.auto_scan(&instance).await.expect("read"), Some(kept));
}

#[tokio::test]
async fn secrets_are_readable_after_a_restart() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    opened
        .add("shop", NewInstance { name: "cache", url: "redis://:secret@h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    drop(opened);
    let opened = installation.open().await;
    let instance = opened.list("shop").await.remove(0);
    let password = opened.instances.credentials(&instance).expect("opens").password.expect("a password");
    assert_eq!(password.expose_secret(), "secret");
}

#[tokio::test]
async fn a_wrong_key_file_is_detected_at_start() {
    let (installation, other) = (Installation::new(), Installation::new());
    drop((installation.open().await, other.open().await));
    let right = read(installation.path("store.db.key"));
    fs::write(installation.path("store.db.key"), read(other.path("store.db.key"))).expect("written");
    let error = installation.try_open().await.err().expect("the wrong key");
    assert!(matches!(error, VaultError::OtherKey { .. }), "{error}");
    let sentence = error.to_string();
    assert!(sentence.contains("store.db.key") && sentence.contains("put back the key file"), "{sentence}");
    fs::write(installation.path("store.db.key"), right).expect("written");
    installation.open().await;
}

#[tokio::test]
async fn a_lost_key_file_is_not_replaced_by_a_new_one() {
    let installation = Installation::new();
    drop(installation.open().await);
    let key_file = installation.path("store.db.key");
    fs::rename(&key_file, installation.path("kept.key")).expect("moved");
    for _ in 0..2 {
        let error = installation.try_open().await.err().expect("no key");
        assert!(matches!(error, VaultError::Lost { .. }), "{error}");
        assert!(!key_file.exists(), "no file is where the right one belongs");
    }
    fs::rename(installation.path("kept.key"), &key_file).expect("moved back");
    installation.open().await;
}

#[tokio::test]
async fn a_server_that_cannot_be_scanned_gets_neither_a_task_nor_an_auto_scan() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    let new = NewInstance { name: "cache", url: "redis://h:1", ..NewInstance::default() };
    let instance = opened.add("shop", new).await.expect("added");
    opened.store.record_facts(&instance, &InstanceStats::of_other_engine(now())).await.expect("recorded");
    let [instance] = opened.list("shop").await.try_into().expect("an instance");

    let error = Tasks::new(opened.store.clone()).submit(&instance, None).await.expect_err("unsupported");
    assert!(matches!(error, TaskError::Unsupported { .. }), "{error}");
    let set = async |enabled| {
        let update = |before| Ok::<_, InstanceError>(AutoScan { enabled, first_scan_at: Some(now()), ..before });
        opened.instances.set_auto_scan(&instance, None, update).await
    };
    let error = set(true).await.expect_err("unsupported");
    assert!(matches!(error, InstanceError::Unsupported { .. }), "{error}");
    assert!(error.to_string().contains("cache"), "{error}");
    assert!(!set(false).await.expect("disabling is possible").enabled);
}

#[tokio::test]
async fn an_unreadable_setting_is_named_and_ends_no_list() {
    let installation = Installation::new();
    let opened = installation.open().await;
    opened.identity.add_project("shop", None).await.expect("added");
    for name in ["bad", "good"] {
        let new = NewInstance { name, url: "redis://h:1", ..NewInstance::default() };
        opened.add("shop", new).await.expect("added");
    }
    let [bad, good] = opened.list("shop").await.try_into().expect("two instances");
    // As a row that was changed by hand, or by a later version.
    let changed = Instance {
        url: Stored::read("h:1"),
        pace: Stored::read("gentel"),
        window: Some(Stored::read("02:00-05:00 Mars/Olympus")),
        ..bad.clone()
    };
    opened.store.update_instance(&bad, &changed).await.expect("changed");
    let [bad, still_good] = opened.list("shop").await.try_into().expect("two instances");
    assert_eq!(still_good, good);
    let problems = bad.problems();
    for (problem, parts) in problems.iter().zip([["url", "scheme"], ["pace", "gentel"], ["window", "Mars/Olympus"]]) {
        assert!(parts.iter().all(|part| problem.contains(part)), "{problem}");
    }
    assert_eq!(problems.len(), 3);
    let error = opened.instances.target(&bad).expect_err("unreadable");
    assert!(matches!(error, InstanceError::Unreadable { .. }) && error.to_string().contains("\"bad\""), "{error}");
    // A change of another setting keeps the unreadable ones as they are.
    let change = keysweep::instances::InstanceChange { name: Some("worse".into()), ..Default::default() };
    let renamed = opened.instances.change(&bad, change, None).await.expect("changed");
    assert_eq!(renamed.problems(), problems);
}
