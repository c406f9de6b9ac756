//! An installation of the real keysweep binary: a database, a master key, and the commands of an operator.

use std::{
    fs,
    io::Write,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    postgres::Postgres,
    service::{Service, id},
};

/// A database and a master key in a temporary folder, and the binary that uses them.
pub struct Installation {
    binary: PathBuf,
    folder: TempDir,
    /// URL of a PostgreSQL database; `None` for the SQLite file in the folder.
    postgres: Option<String>,
}

impl Installation {
    /// Creates an empty installation of this binary. Tests of keysweep's package use [`installation!`](crate::installation).
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let folder = TempDir::with_prefix("keysweep-test-").expect("a temporary folder");
        Self { binary: binary.into(), folder, postgres: None }
    }

    /// Creates an installation that uses this PostgreSQL server, with a master key in its folder.
    pub fn on_postgres(binary: impl Into<PathBuf>, server: &Postgres) -> Self {
        let installation = Self { postgres: Some(server.url()), ..Self::new(binary) };
        let path = installation.key_file();
        // Any 32 bytes, in base64.
        fs::write(&path, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("the folder can be written to");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        installation
    }

    /// Returns the folder of the installation.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the path of the SQLite file.
    pub fn database(&self) -> PathBuf {
        self.folder().join("keysweep.db")
    }

    /// Returns the path of the master key.
    pub fn key_file(&self) -> PathBuf {
        self.folder().join("keysweep.db.key")
    }

    /// Returns the database URL for `--database`.
    pub fn database_url(&self) -> String {
        self.postgres.clone().unwrap_or_else(|| format!("sqlite:{}", self.database().display()))
    }

    /// Returns a command that runs the binary with these arguments, in an environment without keysweep settings of the machine.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        let foreign = |name: &std::ffi::OsString| {
            let name = name.to_string_lossy();
            ["KEYSWEEP_", "OTEL_"].iter().any(|prefix| name.starts_with(prefix)) || name == "NOTIFY_SOCKET"
        };
        for name in std::env::vars_os().map(|(name, _)| name).filter(foreign) {
            command.env_remove(name);
        }
        command.env_remove("REDISCLI_AUTH");
        command.env("KEYSWEEP_DATABASE", self.database_url()).args(arguments);
        if self.postgres.is_some() {
            command.env("KEYSWEEP_KEY_FILE", self.key_file());
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs the binary until it exits.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// Runs `keysweep admin … --json` and returns its output. It must succeed.
    pub fn admin(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["admin", "--json"];
        all.extend(arguments);
        let output = self.run(&all);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON document on standard output")
    }

    /// Runs `keysweep admin … --json` with a password on standard input. It must succeed.
    pub fn admin_with_input(&self, arguments: &[&str], input: &str) {
        let mut command = self.command(&[&["admin", "--json"], arguments].concat());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("the binary reads standard input");
        let output = child.wait_with_output().expect("the binary exits");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Adds a user with this password.
    pub fn add_user(&self, name: &str, project: &str, role: &str, password: &str) {
        let arguments = ["user", "add", name, "--project", project, "--role", role, "--password-stdin"];
        self.admin_with_input(&arguments, &format!("{password}\n"));
    }

    /// Adds a project with one instance; returns the ids of project and instance.
    pub fn register(&self, url: &str) -> (String, String) {
        self.register_with(url, &[])
    }

    /// Adds a project with one instance, with options of `admin instance add`; returns the ids of project and instance.
    pub fn register_with(&self, url: &str, options: &[&str]) -> (String, String) {
        let project = id(&self.admin(&["project", "add", "test"]));
        let add = ["instance", "add", "cache", url, "--project", &project];
        let instance = id(&self.admin(&[&add, options].concat()));
        (project, instance)
    }

    /// Adds an instance to a project, with options of `admin instance add`; returns its id.
    pub fn register_another(&self, project: &str, name: &str, url: &str, options: &[&str]) -> String {
        let add = ["instance", "add", name, url, "--project", project];
        id(&self.admin(&[&add, options].concat()))
    }

    /// Starts `keysweep serve` on a free port and waits until it accepts requests.
    pub fn serve(&self, arguments: &[&str]) -> Service {
        self.start_service("127.0.0.1:0", arguments, &[])
    }

    /// Starts `keysweep serve` on this address.
    pub fn serve_at(&self, address: &str, arguments: &[&str]) -> Service {
        self.start_service(address, arguments, &[])
    }

    /// Starts `keysweep serve` on a free port with these environment variables.
    pub fn serve_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        self.start_service("127.0.0.1:0", arguments, environment)
    }

    fn start_service(&self, address: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        let mut all = vec!["serve", "--listen", address];
        all.extend(arguments);
        let mut command = self.command(&all);
        command.envs(environment.iter().copied());
        Service::start(command)
    }

    /// Starts `keysweep serve` with a copy of the SQLite file on a separate disk of `size` (in the syntax of mount: `4m`). Returns the
    /// service and the path of the disk, which is a tmpfs that only the service's process sees. Returns `None` if this system does
    /// not allow the mount.
    pub fn serve_on_small_disk(&self, size: &str, arguments: &[&str]) -> Option<(Service, PathBuf)> {
        const SCRIPT: &str = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && cp "$3" "$2/" && shift 3 && exec "$@""#;
        let disk = self.folder().join("disk");
        fs::create_dir(&disk).expect("the folder can be written to");
        let mut trial = Command::new("unshare");
        trial.args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", size]).arg(&disk);
        let trial = trial.arg(self.database()).arg("true").output();
        if !trial.is_ok_and(|trial| trial.status.success()) {
            return None;
        }
        let mut all = vec!["serve", "--listen", "127.0.0.1:0"];
        all.extend(arguments);
        let serve = self.command(&all);
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", size]).arg(&disk).arg(self.database());
        command.arg(serve.get_program()).args(serve.get_args()).stdin(Stdio::null());
        for (name, value) in serve.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("KEYSWEEP_DATABASE", format!("sqlite:{}", disk.join("keysweep.db").display()));
        command.env("KEYSWEEP_KEY_FILE", self.key_file());
        let service = Service::start(command);
        // unshare and sh execute the next program in place, so the process is the service by now.
        let root = PathBuf::from(format!("/proc/{}/root", service.pid()));
        let disk = root.join(disk.strip_prefix("/").unwrap_or(&disk));
        Some((service, disk))
    }
}

/// Creates an empty installation of the keysweep binary, in the integration tests of its package.
#[macro_export]
macro_rules! installation {
    () => {
        $crate::Installation::new(env!("CARGO_BIN_EXE_keysweep"))
    };
}
