//! The Debian package and its systemd unit.

use std::{
    fs,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process::{Command, Output},
    time::Duration,
};

use keysweep_harness::Installation;

use crate::common::root;

const BINARY: &str = env!("CARGO_BIN_EXE_keysweep");

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Runs a tool; returns `None` and prints a note if the machine lacks it.
fn run(tool: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(tool).args(arguments).current_dir(root()).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("skipped: {tool}: {error}");
            None
        }
    }
}

/// Returns the unit as installed, with the path of the binary under test.
fn unit() -> (tempfile::TempDir, String) {
    let folder = tempfile::TempDir::new().expect("a folder");
    let unit = fs::read_to_string(root().join("deploy/systemd/keysweep.service")).expect("the unit");
    let here = unit.replace("/usr/bin/keysweep", BINARY);
    assert_ne!(unit, here, "the unit starts the binary where the package puts it");
    let path = folder.path().join("keysweep.service");
    fs::write(&path, here).expect("written");
    let path = path.to_str().expect("UTF-8").to_owned();
    (folder, path)
}

#[test]
fn systemd_accepts_the_unit_and_rates_its_exposure_low() {
    let (_folder, unit) = unit();
    let Some(verified) = run("systemd-analyze", &["verify", "--man=no", &unit]) else { return };
    assert!(verified.status.success() && said(&verified).is_empty(), "{}", said(&verified));
    // Of 10; a service without hardening has 9.6.
    let arguments = ["security", "--offline=true", "--threshold=15", &unit];
    let Some(judged) = run("systemd-analyze", &arguments) else { return };
    assert!(judged.status.success(), "{}", said(&judged));
}

#[test]
fn a_service_notifies_systemd_when_it_serves_and_when_it_stops() {
    let installation = Installation::new(BINARY);
    let path = installation.folder().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("a bound");
    let hear = || {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).expect("a word");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let service = installation.serve_with(&["--no-auth"], &[("NOTIFY_SOCKET", path.to_str().expect("UTF-8"))]);
    assert_eq!(hear().trim(), "READY=1");
    assert_eq!(service.request("GET", "/readyz").status, 200);
    assert_eq!(service.terminate().0, Some(0));
    assert_eq!(hear().trim(), "STOPPING=1");
}

#[test]
fn the_service_accepts_the_config_file_of_the_package() {
    let text = fs::read_to_string(root().join("deploy/debian/keysweep.toml")).expect("the file");
    toml::from_str::<keysweep::config::FileConfig>(&text).unwrap_or_else(|error| panic!("as it is: {error}"));
    // A setting that is commented out contains ` = `; prose does not.
    let settings: String = text
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line))
        .map(|line| format!("{line}\n"))
        .collect();
    let all: keysweep::config::FileConfig =
        toml::from_str(&settings).unwrap_or_else(|error| panic!("with all settings: {error}"));
    assert!(all.metrics_listen.is_some() && all.tls_cert.is_some() && all.concurrency.is_some(), "{all:?}");
}

/// The service refuses to begin with an empty database where there is a key: the package makes both.
#[test]
fn the_package_makes_the_database_that_belongs_to_its_key() {
    let installation = Installation::new(BINARY);
    let script = fs::read_to_string(root().join("deploy/debian/postinst")).expect("the script");
    let line = script.lines().find(|line| line.contains("--new-database")).expect("a line that makes the database");
    let config = installation.folder().join("keysweep.toml");
    let key = installation.key_file();
    let settings =
        format!("database = {:?}\nkey_file = {:?}\n", installation.database_url(), key.display().to_string());
    fs::write(&config, settings).expect("written");
    let made = "(umask 077; head -c 32 /dev/urandom | base64 > \"$1\")";
    assert!(Command::new("sh").args(["-c", made, "sh"]).arg(&key).status().expect("it runs").success());
    let here = line.replace("runuser -u keysweep -- /usr/bin/keysweep", BINARY);
    let here = here.replace("/etc/keysweep/keysweep.toml", &config.display().to_string());
    assert_eq!(here.matches(BINARY).count(), 1, "{line}");
    assert!(Command::new("sh").args(["-e", "-c", &here]).status().expect("it runs").success(), "{here}");
    assert!(installation.database().exists());
    installation.serve(&[]).terminate();
}

/// Returns the package built by `make deb`, if there is one.
fn package() -> Option<PathBuf> {
    let entries = fs::read_dir(root().join("target/deb")).into_iter().flatten().flatten();
    let found = entries.map(|entry| entry.path()).find(|path| path.extension().is_some_and(|end| end == "deb"));
    if found.is_none() {
        eprintln!("skipped: there is no package in target/deb; `make deb` makes one and runs this");
    }
    found
}

#[test]
fn heavy_the_package_contains_its_files() {
    let Some(package) = package() else { return };
    let Some(listed) = run("dpkg-deb", &["--contents", package.to_str().expect("UTF-8")]) else { return };
    let listed = said(&listed);
    for (mode, file) in [
        ("-rwxr-xr-x", "./usr/bin/keysweep"),
        ("-rw-r--r--", "/systemd/system/keysweep.service"),
        ("-rw-r-----", "./etc/keysweep/keysweep.toml"),
        ("-rw-r--r--", "./usr/share/man/man1/keysweep.1.gz"),
        ("-rw-r--r--", "./usr/share/man/man1/keysweep-serve.1.gz"),
        ("-rw-r--r--", "./usr/share/bash-completion/completions/keysweep"),
        ("-rw-r--r--", "./usr/share/doc/keysweep/prometheus/alerts.yml"),
        ("-rw-r--r--", "./usr/share/doc/keysweep/copyright"),
    ] {
        let line = listed.lines().find(|line| line.ends_with(file)).unwrap_or_else(|| panic!("{file} not in {listed}"));
        assert!(line.starts_with(mode) && (line.contains(" 0/0 ") || line.contains(" root/root ")), "{line}");
    }
    assert!(!listed.contains(".key"), "a package that carries a key gives everybody the same: {listed}");
    let fields = run("dpkg-deb", &["--field", package.to_str().expect("UTF-8")]).expect("it was there a moment ago");
    let fields = said(&fields);
    for field in ["Package: keysweep\n", "libc6 (>=", "adduser"] {
        assert!(fields.contains(field), "{fields}");
    }
}

#[test]
fn heavy_the_package_is_installed_started_and_removed() {
    let Some(package) = package() else { return };
    let Some(tried) = run("scripts/try-deb", &[package.to_str().expect("UTF-8")]) else { return };
    let said = said(&tried);
    match tried.status.code() {
        Some(77) => eprintln!("{said}"),
        code => {
            assert_eq!(code, Some(0), "{said}");
            assert!(said.contains("removed, then purged\n"), "{said}");
            println!("{said}");
        }
    }
}
