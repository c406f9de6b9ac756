//! `keysweep admin key rotate` through the real binary, on both engines.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Stdio, time::Duration};

use keysweep_harness::{Flavor, Installation, Postgres, Server, Signer, eventually, id};
use rstest::rstest;
use serde_json::{Value, json};
use sqlx::{Connection, Executor, PgConnection};

const BINARY: &str = env!("CARGO_BIN_EXE_keysweep");
const PASSWORD: &str = "hunter2-hunter2";

/// An installation with an access key, and an instance whose server asks for a password.
struct Kept {
    installation: Installation,
    signer: Signer,
    path: String,
    _server: Server,
    _database: Option<Postgres>,
}

fn kept(database: Option<Postgres>) -> Kept {
    let server = Server::with(Flavor::Valkey91).password(PASSWORD).start();
    let installation = match &database {
        Some(database) => Installation::on_postgres(BINARY, database),
        None => Installation::new(BINARY),
    };
    let project = id(&installation.admin(&["project", "add", "shop"]));
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "admin"]);
    let key = installation.admin(&["access-key", "add", "--user", "robot"]);
    let text = |name: &str| key[name].as_str().expect("a text").to_owned();
    let signer = Signer { access: text("access"), secret: text("secret") };
    let url = format!("redis://:{PASSWORD}@127.0.0.1:{}", server.port());
    let instance = installation.register_another(&project, "cache", &url, &[]);
    let path = format!("/api/v1/projects/{project}/instances/{instance}");
    Kept { installation, signer, path, _server: server, _database: database }
}

impl Kept {
    /// Serves a signed request, and one that needs the password: both secrets must open.
    fn works(&self) {
        let service = self.installation.serve(&[]);
        let headers = self.signer.headers("GET", &self.path, b"");
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let answer = service.send("GET", &self.path, &headers, "");
        assert_eq!(answer.status, 200, "{:?}", answer.body);
        service.terminate();
        let service = self.installation.serve(&["--no-auth"]);
        let tested = service.request("POST", &format!("{}/test", self.path));
        assert_eq!((tested.status, &tested.body["ok"]), (200, &json!(true)), "{:?}", tested.body);
        service.terminate();
    }

    /// What `admin` says to this, which must fail.
    fn refused(&self, arguments: &[&str]) -> String {
        let output = self.installation.run(&[&["admin"], arguments].concat());
        assert!(!output.status.success(), "{arguments:?} succeeds");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn beside_key(&self, suffix: &str) -> PathBuf {
        let mut name = self.installation.key_file().into_os_string();
        name.push(suffix);
        name.into()
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[rstest]
#[case::sqlite(None)]
#[case::postgres(Some(Postgres::start()))]
fn after_a_rotation_everything_opens_with_the_new_key_and_nothing_with_the_old_one(#[case] database: Option<Postgres>) {
    let kept = kept(database);
    let before = fs::read_to_string(kept.installation.key_file()).expect("a key file");
    let rotated = kept.installation.admin(&["key", "rotate"]);
    assert_eq!(text(&rotated["key_file"]), kept.installation.key_file().to_str().expect("plain"));
    assert_ne!(rotated["old_key"], rotated["new_key"]);
    assert_ne!(fs::read_to_string(kept.installation.key_file()).expect("a key file"), before);
    let mode = |path: &str| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!((mode(text(&rotated["key_file"])), mode(text(&rotated["old_key_file"]))), (0o600, 0o600));
    kept.works();

    let old = text(&rotated["old_key_file"]);
    assert_eq!(fs::read_to_string(old).expect("the old key is kept"), before);
    let said = kept.refused(&["--key-file", old, "user", "list"]);
    assert!(said.contains(text(&rotated["new_key"])), "it names the key that is needed: {said}");
    let again = kept.installation.admin(&["key", "rotate"]);
    assert_eq!(again["old_key"], rotated["new_key"], "and once more");
    kept.works();
}

#[rstest]
#[case::sqlite(None)]
#[case::postgres(Some(Postgres::start()))]
fn a_rotation_with_a_wrong_old_key_changes_nothing(#[case] database: Option<Postgres>) {
    let kept = kept(database);
    let other = kept.beside_key(".other");
    fs::write(&other, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").expect("written");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o600)).expect("a mode");
    let said = kept.refused(&["--key-file", other.to_str().expect("plain"), "key", "rotate"]);
    assert!(said.contains("put back the key file"), "{said}");
    let said = kept.refused(&["--key-file", "absent.key", "key", "rotate"]);
    assert!(said.contains("absent.key") && said.contains("no such file"), "{said}");
    kept.works();
}

#[rstest]
#[case::sqlite(None)]
#[case::postgres(Some(Postgres::start()))]
fn a_rotation_that_was_interrupted_between_database_and_key_file_is_said_and_finished_by_doing_it_again(
    #[case] database: Option<Postgres>,
) {
    let kept = kept(database);
    // A crash after the transaction leaves just this: the new key beside the old one.
    let next = kept.beside_key(".new");
    let made = kept.installation.admin(&["key", "rotate", "--to", next.to_str().expect("plain")]);
    let said = kept.refused(&["user", "list"]);
    assert!(said.contains("interrupted") && said.contains(".new"), "{said}");
    let rotated = kept.installation.admin(&["key", "rotate"]);
    assert_eq!((&rotated["old_key"], &rotated["new_key"]), (&made["old_key"], &made["new_key"]));
    assert!(!next.exists());
    kept.works();
}

#[rstest]
#[case::sqlite(None)]
#[case::postgres(Some(Postgres::start()))]
fn a_new_key_may_be_brought_along_and_its_file_stays_where_it_is(#[case] database: Option<Postgres>) {
    let kept = kept(database);
    let brought = kept.beside_key(".brought");
    fs::write(&brought, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n").expect("written");
    fs::set_permissions(&brought, fs::Permissions::from_mode(0o600)).expect("a mode");
    let rotate = ["key", "rotate", "--to", brought.to_str().expect("plain")];
    let rotated = kept.installation.admin(&rotate);
    assert_eq!(kept.installation.admin(&rotate), rotated, "done already");
    assert_eq!(text(&rotated["old_key_file"]), kept.installation.key_file().to_str().expect("plain"));
    fs::rename(&brought, kept.installation.key_file()).expect("put in its place");
    kept.works();
    let itself = kept.installation.key_file();
    let said = kept.refused(&["key", "rotate", "--to", itself.to_str().expect("plain")]);
    assert!(said.contains("the old one"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_is_killed_half_way_leaves_everything_to_the_old_key() {
    let kept = kept(Some(Postgres::start()));
    let database = kept._database.as_ref().expect("PostgreSQL");
    let mut holder = PgConnection::connect(&database.url()).await.expect("it opens");
    holder.execute("BEGIN").await.expect("begun");
    // The last that a rotation writes: it stops there with all secrets changed, and nothing committed.
    holder.execute("LOCK TABLE audit IN SHARE MODE").await.expect("locked");
    let mut rotation = kept.installation.command(&["admin", "key", "rotate"]);
    let mut rotation = rotation.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    eventually("it waits for its last write", Duration::from_secs(20), || {
        (database.sql("SELECT count(*) FROM pg_locks WHERE NOT granted") == "1").then_some(())
    });
    rotation.kill().expect("it runs");
    rotation.wait().expect("it ends");
    holder.execute("ROLLBACK").await.expect("ended");
    holder.close().await.expect("closed");
    kept.works();
    let rotated = kept.installation.admin(&["key", "rotate"]);
    assert!(!kept.beside_key(".new").exists(), "the key that was made first is used: {rotated}");
    kept.works();
}
