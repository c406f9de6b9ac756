//! The fleet over a real store: what operators register, and that its secrets stay secret.

use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use keysweep::{
    fleet::{Fleet, FleetError, NewInstance, is_id, vault::VaultError},
    model::{AutoScan, Instance, Role},
    store::Store,
};
use secrecy::ExposeSecret;
use tempfile::TempDir;
use tokio::runtime::Handle;

struct Installation {
    folder: TempDir,
}

impl Installation {
    fn new() -> Self {
        Self { folder: TempDir::new().expect("a folder") }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    async fn store(&self) -> Store {
        Store::open_sqlite(&self.path("store.db")).await.expect("a store")
    }

    async fn open(&self) -> Result<Fleet, FleetError> {
        Fleet::open(self.store().await, &self.path("store.db.key")).await
    }

    async fn fleet(&self) -> Fleet {
        self.open().await.expect("a fleet")
    }

    /// Everything that is on disk, the key file left out.
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
async fn a_password_is_taken_out_of_the_url_kept_encrypted_and_given_to_the_sweep() {
    let installation = Installation::new();
    let fleet = installation.fleet().await;
    fleet.add_project("shop", None).await.expect("added");
    let instance = fleet
        .add_instance(
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
    assert_eq!(
        (instance.url.as_str(), instance.username.as_deref()),
        ("redis://cache.example:6380/2", Some("sweeper"))
    );
    assert_eq!((instance.pace.as_str(), instance.paused), ("normal", false));

    let seen = fleet.instance(&instance.project_id, &instance.id).await.expect("read").expect("an instance");
    assert_eq!(seen, instance);
    let target = fleet.target(&seen).expect("a target");
    assert_eq!((target.seed().to_string().as_str(), target.database), ("cache.example:6380", Some(2)));
    assert_eq!(target.credentials.username.as_deref(), Some("sweeper"));
    assert_eq!(target.credentials.password.as_ref().map(|it| it.expose_secret()), Some("correct horse"));

    let contents = installation.contents();
    assert!(holds(&contents, "cache.example"), "this is where it is kept");
    assert!(!holds(&contents, "correct horse") && !holds(&contents, "correct%20horse"));
    assert!(!format!("{seen:?}").contains("horse"));
}

#[tokio::test]
async fn a_password_that_was_moved_to_another_instance_does_not_open() {
    let installation = Installation::new();
    let fleet = installation.fleet().await;
    fleet.add_project("shop", None).await.expect("added");
    let one = fleet
        .add_instance("shop", NewInstance { name: "one", url: "redis://:secret@h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let other = fleet
        .add_instance("shop", NewInstance { name: "other", url: "redis://h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let moved = Instance { password: one.password, ..other };
    let error = fleet.target(&moved).expect_err("moved");
    assert!(matches!(error, FleetError::Vault(VaultError::Changed { .. })), "{error}");
}

#[tokio::test]
async fn an_instance_without_credentials_has_none() {
    let installation = Installation::new();
    let fleet = installation.fleet().await;
    fleet.add_project("shop", None).await.expect("added");
    let instance = fleet
        .add_instance(
            "shop",
            NewInstance { name: "cache", url: "valkey://cache.example", id: None, ..NewInstance::default() },
        )
        .await
        .expect("added");
    let credentials = fleet.credentials(&instance).expect("credentials");
    assert!(credentials.username.is_none() && credentials.password.is_none());
}

#[tokio::test]
async fn a_project_is_found_by_its_id_or_its_name() {
    let installation = Installation::new();
    let fleet = installation.fleet().await;
    let id = "6c9f1a3e-5d0b-4f27-9a64-0d5c3e9b7a12";
    let project = fleet.add_project("shop", Some(id)).await.expect("added");
    assert_eq!(project.id, id, "as it was given");
    // A name that is another project's id does not hide that one.
    let namesake = fleet.add_project(id, None).await.expect("added");
    assert_eq!(fleet.project("shop").await.expect("found"), project);
    assert_eq!(fleet.project(id).await.expect("found"), project);
    assert_eq!(fleet.project(&namesake.id).await.expect("found"), namesake);
    assert_eq!(fleet.projects().await.expect("read").len(), 2);

    let instance = fleet
        .add_instance(
            id,
            NewInstance { name: "cache", url: "redis://h", id: Some(&"a".repeat(32)), ..NewInstance::default() },
        )
        .await
        .expect("added");
    assert_eq!((instance.id.as_str(), instance.project_id.as_str()), ("a".repeat(32).as_str(), id));
    assert_eq!(fleet.instances("shop").await.expect("read"), [instance]);
    let error = fleet.instances("absent").await.expect_err("absent").to_string();
    assert!(error.contains("\"absent\"") && error.contains("project list"), "{error}");
}

#[tokio::test]
async fn an_access_key_has_the_documented_form_and_opens_for_its_holder() {
    let installation = Installation::new();
    let fleet = installation.fleet().await;
    let project = fleet.add_project("shop", None).await.expect("added");
    let user = fleet.add_user("ada", "shop", Role::Operator, None).await.expect("added");
    let (access, secret) = fleet.add_access_key("ada").await.expect("added");
    let (other_access, other_secret) = fleet.add_access_key("ada").await.expect("added");
    assert_eq!((access.len(), secret.expose().len()), (20, 40));
    assert!(access.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit()), "{access}");
    assert!(secret.expose().bytes().all(|byte| byte.is_ascii_alphanumeric()));
    assert!(access != other_access && secret.expose() != other_secret.expose());

    let holder = fleet.key_holder(&access).await.expect("read").expect("a holder");
    assert_eq!(holder.user, user);
    assert_eq!((holder.grants[0].project_id.as_str(), holder.grants[0].role), (project.id.as_str(), Role::Operator));
    assert_eq!(fleet.open_secret_key(&holder.key).expect("opens").expose(), secret.expose());
    assert!(fleet.key_holder("ABSENT").await.expect("read").is_none());
    assert!(!holds(&installation.contents(), secret.expose()));

    let error = fleet.add_access_key("bob").await.expect_err("no such user").to_string();
    assert!(error.contains("\"bob\"") && error.contains("user add"), "{error}");
    let error = fleet.add_user("bob", "absent", Role::Reader, None).await.expect_err("no such project").to_string();
    assert!(error.contains("\"absent\""), "{error}");
}

#[tokio::test]
async fn what_is_taken_or_may_not_be_is_said_with_field_value_and_remedy() {
    let installation = Installation::new();
    let fleet = installation.fleet().await;
    let project = fleet.add_project("shop", None).await.expect("added");
    fleet.add_user("ada", "shop", Role::Reader, None).await.expect("added");
    let instance = fleet
        .add_instance("shop", NewInstance { name: "cache", url: "redis://h", id: None, ..NewInstance::default() })
        .await
        .expect("added");
    let long = "x".repeat(65);
    let errors = [
        (fleet.add_project("shop", None).await.map(drop), ["project", "name", "\"shop\"", "another name"]),
        (fleet.add_project("s", Some(&project.id)).await.map(drop), ["project", "id", &project.id, "another id"]),
        (fleet.add_user("ada", "shop", Role::Admin, None).await.map(drop), ["user", "name", "\"ada\"", "another name"]),
        (
            fleet
                .add_instance(
                    "shop",
                    NewInstance { name: "cache", url: "redis://h", id: None, ..NewInstance::default() },
                )
                .await
                .map(drop),
            ["instance", "name", "\"cache\"", "another name"],
        ),
        (
            fleet
                .add_instance(
                    "shop",
                    NewInstance { name: "x", url: "redis://h", id: Some(&instance.id), ..NewInstance::default() },
                )
                .await
                .map(drop),
            ["instance", "id", &instance.id, "another id"],
        ),
        (fleet.add_project("", None).await.map(drop), ["project name", "\"\"", "1 to 64", "characters"]),
        (fleet.add_project(" x", None).await.map(drop), ["project name", "\" x\"", "1 to 64", "spaces"]),
        (
            fleet.add_user(&long, "shop", Role::Admin, None).await.map(drop),
            ["user name", &long, "1 to 64", "characters"],
        ),
        (
            fleet
                .add_instance(
                    "shop",
                    NewInstance { name: "a\nb", url: "redis://h", id: None, ..NewInstance::default() },
                )
                .await
                .map(drop),
            ["instance name", "\"a\\nb\"", "1 to 64", "control characters"],
        ),
        (
            fleet
                .add_instance(
                    "shop",
                    NewInstance { name: "x", url: "redis://h", id: Some("42"), ..NewInstance::default() },
                )
                .await
                .map(drop),
            ["instance id", "\"42\"", "32 hexadecimal digits", "UUID"],
        ),
    ];
    for (result, parts) in errors {
        let error = result.expect_err(parts[2]).to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} in: {error}");
        }
    }
    assert_eq!(fleet.instances("shop").await.expect("read"), [instance]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sets_an_auto_scan_while_another_does_undoes_nothing_that_he_does_not_name() {
    let installation = Installation::new();
    let fleet = installation.fleet().await;
    fleet.add_project("shop", None).await.expect("added");
    let new = NewInstance { name: "cache", url: "redis://h:1", ..NewInstance::default() };
    let instance = fleet.add_instance("shop", new).await.expect("added");
    let hourly = |before| Ok::<_, FleetError>(AutoScan { interval: Duration::from_secs(3_600), ..before });
    let calls = AtomicU32::new(0);
    // Between what this one has read and what it writes, another says how often.
    let kept = fleet.set_auto_scan(&instance, None, |before| {
        if calls.fetch_add(1, Ordering::Relaxed) == 0 {
            let other = fleet.set_auto_scan(&instance, None, hourly);
            tokio::task::block_in_place(|| Handle::current().block_on(other))?;
        }
        Ok::<_, FleetError>(AutoScan { scan_keys_count: 20, ..before })
    });
    let kept = kept.await.expect("kept");
    assert_eq!((kept.interval, kept.scan_keys_count), (Duration::from_secs(3_600), 20));
    assert_eq!(calls.into_inner(), 2, "it was asked again with what the other had said");
    assert_eq!(fleet.auto_scan(&instance).await.expect("read"), Some(kept));
}

#[tokio::test]
async fn the_next_start_opens_what_this_one_sealed() {
    let installation = Installation::new();
    let fleet = installation.fleet().await;
    fleet.add_project("shop", None).await.expect("added");
    fleet
        .add_instance(
            "shop",
            NewInstance { name: "cache", url: "redis://:secret@h", id: None, ..NewInstance::default() },
        )
        .await
        .expect("added");
    drop(fleet);
    let fleet = installation.fleet().await;
    let instance = fleet.instances("shop").await.expect("read").remove(0);
    let password = fleet.credentials(&instance).expect("opens").password.expect("a password");
    assert_eq!(password.expose_secret(), "secret");
}

#[tokio::test]
async fn a_wrong_key_file_is_noticed_at_start() {
    let (installation, other) = (Installation::new(), Installation::new());
    drop((installation.fleet().await, other.fleet().await));
    let right = read(installation.path("store.db.key"));
    fs::write(installation.path("store.db.key"), read(other.path("store.db.key"))).expect("written");
    let error = installation.open().await.err().expect("the wrong key");
    assert!(matches!(error, FleetError::Vault(VaultError::OtherKey { .. })), "{error}");
    let sentence = error.to_string();
    assert!(sentence.contains("store.db.key") && sentence.contains("put back the key file"), "{sentence}");
    fs::write(installation.path("store.db.key"), right).expect("written");
    installation.open().await.expect("the right one is good again");
}

#[tokio::test]
async fn a_lost_key_file_is_not_replaced_by_a_new_one() {
    let installation = Installation::new();
    drop(installation.fleet().await);
    let key_file = installation.path("store.db.key");
    fs::rename(&key_file, installation.path("kept.key")).expect("moved");
    for _ in 0..2 {
        let error = installation.open().await.err().expect("no key");
        assert!(matches!(error, FleetError::Vault(VaultError::Lost { .. })), "{error}");
        assert!(!key_file.exists(), "nothing stands where the right one belongs");
    }
    fs::rename(installation.path("kept.key"), &key_file).expect("moved back");
    installation.open().await.expect("a fleet");
}
