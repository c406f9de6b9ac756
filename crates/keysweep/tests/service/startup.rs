//! Failed starts of the service: one sentence with cause and remedy, and nothing left behind.

use std::{fs, net::TcpListener, process::Output};

use keysweep_harness::installation;

/// Returns the error line of a failed start.
fn error_line(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: ") && said.lines().count() == 1, "{said}");
    assert!(output.stdout.is_empty());
    said
}

#[test]
fn a_port_in_use_is_reported_with_the_option_to_change() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = taken.local_addr().expect("an address").to_string();
    let installation = installation!();
    for (arguments, option) in [
        (vec!["serve", "--listen", &taken], "--listen"),
        (vec!["serve", "--listen", "127.0.0.1:0", "--metrics-listen", &taken], "--metrics-listen"),
        (vec!["worker", "--metrics-listen", &taken], "--metrics-listen"),
    ] {
        let said = error_line(&installation.run(&arguments));
        let wanted = format!(
            "cannot listen on {taken}: another program listens there, perhaps another keysweep; choose another address with {option}"
        );
        assert!(said.contains(&wanted), "{said}");
    }
    // An address reserved for documentation, which no machine has.
    let said = error_line(&installation.run(&["serve", "--listen", "192.0.2.1:7080", "--insecure-http"]));
    assert!(said.contains("this machine has no such address"), "{said}");
    assert!(!installation.database().exists(), "no file is created before the ports are bound");
}

#[test]
fn a_database_that_cannot_be_opened_is_reported_with_a_remedy() {
    let installation = installation!();
    let file = installation.folder().join("file");
    fs::write(&file, "This is not a database, and long enough for one to be looked for in it.").expect("written");
    let open = |path: &str| {
        let database = format!("sqlite:{}/{path}", installation.folder().display());
        let said = error_line(&installation.run(&["serve", "--listen", "127.0.0.1:0", "--database", &database]));
        assert!(said.contains(&format!("the database {database} cannot be opened: ")), "{said}");
        said
    };
    let below_a_file = open("file/keysweep.db");
    assert!(below_a_file.contains("cannot create") && below_a_file.contains("choose another place"), "{below_a_file}");
    let garbage = open("file");
    assert!(garbage.contains("not a database"), "{garbage}");
    fs::create_dir(installation.folder().join("folder")).expect("made");
    let folder = open("folder");
    assert!(folder.contains("is a directory") && folder.contains("choose another place"), "{folder}");
    assert_eq!(fs::read_dir(installation.folder()).expect("the folder").count(), 2, "nothing else was made");
}

#[test]
fn a_missing_or_wrong_key_file_is_reported_and_not_replaced() {
    let installation = installation!();
    installation.register("redis://:hunter2-hunter2@127.0.0.1:1");
    let key = installation.key_file();
    let kept = installation.folder().join("kept");
    fs::rename(&key, &kept).expect("moved");
    let serve = || error_line(&installation.run(&["serve", "--listen", "127.0.0.1:0"]));
    let missing = serve();
    assert!(missing.contains("there is no key file") && missing.contains("put back the key file"), "{missing}");
    assert!(!key.exists(), "a new key would open nothing");
    fs::copy(&kept, &key).expect("copied");
    fs::write(&key, "nonsense").expect("written");
    assert!(serve().contains("holds no key; it must be 32 random bytes in base64"));
    fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("written");
    let other = serve();
    assert!(other.contains("put back the key file that belongs to this database"), "{other}");
    fs::copy(&kept, &key).expect("copied");
    // The remedy must not be a change of mode.
    for (path, words) in [
        ("/dev/null", "the key file /dev/null is not a regular file; name one with --key-file"),
        ("/nowhere/at/all/key", "/nowhere/at/all/key"),
    ] {
        let said = error_line(&installation.run(&["serve", "--listen", "127.0.0.1:0", "--key-file", path]));
        assert!(said.contains(words) && !said.contains("chmod"), "{said}");
    }
    let elsewhere = installation.folder().join("new.db").display().to_string();
    let no_folder = installation.folder().join("none/key").display().to_string();
    let said = error_line(&installation.run(&[
        "serve",
        "--database",
        &format!("sqlite:{elsewhere}"),
        "--key-file",
        &no_folder,
    ]));
    assert!(said.contains(&format!("the key file {no_folder} cannot be used: its folder does not exist")), "{said}");
    installation.serve(&[]).terminate();
}

#[test]
fn a_host_name_as_address_is_rejected_with_an_example() {
    let output = installation!().run(&["serve", "--listen", "localhost:7080"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--listen") && said.contains("127.0.0.1:7080"), "{said}");
}
