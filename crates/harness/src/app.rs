//! The real keysweep binary as its operators run it: an installation in a folder of its own, commands, a service.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::postgres::{Postgres, cpu_time};

/// How long anything that should come about may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A database and a key file in a temporary folder, and the binary to use them with.
pub struct Installation {
    binary: PathBuf,
    folder: TempDir,
    /// The URL of another database than the folder's own file.
    elsewhere: Option<String>,
}

impl Installation {
    /// An empty installation of this binary (`env!("CARGO_BIN_EXE_keysweep")` in the tests of its package).
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        let folder = TempDir::with_prefix("keysweep-test-").expect("a temporary folder");
        Self { binary: binary.into(), folder, elsewhere: None }
    }

    /// One that keeps its data in this PostgreSQL, with a master key in its folder.
    pub fn on_postgres(binary: impl Into<PathBuf>, server: &Postgres) -> Self {
        let installation = Self { elsewhere: Some(server.url()), ..Self::new(binary) };
        let path = installation.key_file();
        // Any 32 bytes, in base64.
        fs::write(&path, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").expect("the folder can be written to");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        installation
    }

    /// The folder that holds everything.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The SQLite file.
    pub fn database(&self) -> PathBuf {
        self.folder().join("keysweep.db")
    }

    /// The master key.
    pub fn key_file(&self) -> PathBuf {
        self.folder().join("keysweep.db.key")
    }

    /// What `--database` is to say.
    pub fn database_url(&self) -> String {
        self.elsewhere.clone().unwrap_or_else(|| format!("sqlite:{}", self.database().display()))
    }

    /// The binary with these arguments and an environment without settings of the tester's own.
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
        if self.elsewhere.is_some() {
            command.env("KEYSWEEP_KEY_FILE", self.key_file());
        }
        command.stdin(Stdio::null());
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the binary starts")
    }

    /// Runs `keysweep admin … --json`, which must succeed.
    pub fn admin(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["admin", "--json"];
        all.extend(arguments);
        let output = self.run(&all);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("one JSON document on standard output")
    }

    /// The same for a command that reads a password from its standard input.
    pub fn admin_with_input(&self, arguments: &[&str], input: &str) {
        let mut command = self.command(&[&["admin", "--json"], arguments].concat());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// Adds a user who signs in with this password.
    pub fn add_user(&self, name: &str, project: &str, role: &str, password: &str) {
        let arguments = ["user", "add", name, "--project", project, "--role", role, "--password-stdin"];
        self.admin_with_input(&arguments, &format!("{password}\n"));
    }

    /// Adds a project and an instance in it; returns their ids.
    pub fn register(&self, url: &str) -> (String, String) {
        self.register_with(url, &[])
    }

    /// The same, with more options of `admin instance add`.
    pub fn register_with(&self, url: &str, options: &[&str]) -> (String, String) {
        let project = id(&self.admin(&["project", "add", "test"]));
        let add = ["instance", "add", "cache", url, "--project", &project];
        let instance = id(&self.admin(&[&add, options].concat()));
        (project, instance)
    }

    /// Registers one more instance of the project, with options of `admin instance add`; returns its id.
    pub fn register_another(&self, project: &str, name: &str, url: &str, options: &[&str]) -> String {
        let add = ["instance", "add", name, url, "--project", project];
        id(&self.admin(&[&add, options].concat()))
    }

    /// Starts `keysweep serve` on a free port and waits until it serves.
    pub fn serve(&self, arguments: &[&str]) -> Service {
        self.start_service("127.0.0.1:0", arguments, &[])
    }

    /// The same on a certain address.
    pub fn serve_at(&self, address: &str, arguments: &[&str]) -> Service {
        self.start_service(address, arguments, &[])
    }

    /// The same on a free port, with more of an environment.
    pub fn serve_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        self.start_service("127.0.0.1:0", arguments, environment)
    }

    fn start_service(&self, address: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Service {
        let mut all = vec!["serve", "--listen", address];
        all.extend(arguments);
        let mut command = self.command(&all);
        command.envs(environment.iter().copied());
        started(command)
    }

    /// The same with a copy of the SQLite file on a disk of its own of `size` (as mount has it: `4m`), and where the test
    /// finds that disk. It is in memory, seen by that process only, and gone with it. `None`: this system mounts nothing for us.
    pub fn serve_on_small_disk(&self, size: &str, arguments: &[&str]) -> Option<(Service, PathBuf)> {
        const SCRIPT: &str = r#"mount -t tmpfs -o size="$1" tmpfs "$2" && cp "$3" "$2/" && shift 3 && exec "$@""#;
        let disk = self.folder().join("disk");
        fs::create_dir(&disk).expect("the folder can be written to");
        let mut alone = Command::new("unshare");
        alone.args(["--map-root-user", "--mount", "sh", "-c", SCRIPT, "sh", size]).arg(&disk);
        let trial = alone.arg(self.database()).arg("true").output();
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
        let service = started(command);
        // Each of these programs becomes the next one, so the process is the service by now.
        let there = PathBuf::from(format!("/proc/{}/root", service.pid()));
        let disk = there.join(disk.strip_prefix("/").unwrap_or(&disk));
        Some((service, disk))
    }
}

/// Runs this as a service and waits until it serves.
fn started(mut command: Command) -> Service {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
    let log = follow(&mut child);
    let deadline = Instant::now() + PATIENCE;
    let (mut seen, mut metrics) = (Vec::new(), None);
    let address = loop {
        let line = log
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            .unwrap_or_else(|_| panic!("the service did not start; its log: {seen:#?}"));
        let entry = serde_json::from_str::<Value>(&line).unwrap_or_default();
        if let Some(address) = entry["address"].as_str() {
            break address.to_owned();
        }
        metrics = metrics.or_else(|| entry["metrics"].as_str().map(|address| format!("http://{address}/metrics")));
        seen.push(line);
    };
    Service { child, base: format!("http://{address}"), metrics, log }
}

/// The `id` of an answer.
pub fn id(answer: &Value) -> String {
    answer["id"].as_str().expect("an id").to_owned()
}

/// Reads a child's log in a thread of its own, so that it never blocks on a full pipe.
fn follow(child: &mut Child) -> Receiver<String> {
    let stderr = child.stderr.take().expect("a pipe");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // The receiver is gone once the test does not care any more.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// A running service. Killed on drop.
pub struct Service {
    child: Child,
    /// Where its API is.
    pub base: String,
    /// Where its metrics are, if it serves any.
    pub metrics: Option<String>,
    log: Receiver<String>,
}

/// An answer of the API.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Its headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, `Null` if it is no JSON.
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Service {
    /// Sends a request without a body and reads the answer.
    pub fn request(&self, method: &str, path: &str) -> Answer {
        self.try_request(method, path).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request that may find nobody.
    pub fn try_request(&self, method: &str, path: &str) -> Result<Answer, ureq::Error> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).http_status_as_error(false).build().into();
        let url = format!("{}{path}", self.base);
        let mut response = match method {
            "GET" => agent.get(&url).call()?,
            "POST" => agent.post(&url).send_empty()?,
            "PUT" => agent.put(&url).send_empty()?,
            "DELETE" => agent.delete(&url).call()?,
            other => panic!("no test sends {other}"),
        };
        let headers = response.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned())).collect();
        let text = response.body_mut().read_to_string()?;
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Ok(Answer { status: response.status().as_u16(), headers, body, text })
    }

    /// Sends a request with headers and a body, to a connection of its own, and reads the answer. Follows no redirect.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PATIENCE))
            .http_status_as_error(false)
            .allow_non_standard_methods(true)
            .max_redirects(0)
            .build()
            .into();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.as_ref().to_vec()).expect("a request");
        let mut response = agent.run(request).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let headers = response.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap_or_default().to_owned())).collect();
        let text = response.body_mut().read_to_string().unwrap_or_default();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer { status: response.status().as_u16(), headers, body, text }
    }

    /// What its metrics are now, as text.
    pub fn scrape(&self) -> String {
        let url = self.metrics.as_ref().expect("it was started with --metrics-listen");
        let mut response = ureq::get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
        response.body_mut().read_to_string().expect("text")
    }

    /// A GET that must be answered with 200.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path);
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
        answer.body
    }

    /// Asks until the answer is as wanted.
    pub fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let body = self.get(path);
            if wanted(&body) {
                return body;
            }
            assert!(Instant::now() < deadline, "{path} stays {body:#}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Reads on in its log until a line has these words; returns that line.
    pub fn wait_for_log(&self, words: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("{words:?} is not in the log"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time that it has used.
    pub fn cpu(&self) -> Duration {
        cpu_time(self.child.id() as i32, false)
    }

    /// Freezes it (SIGSTOP): it keeps its connections and does nothing.
    pub fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("a child can be sent signals");
    }

    /// Lets it go on after [`Service::pause`].
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("a child can be sent signals");
    }

    /// Kills it as `kill -9` does.
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it can be waited for");
    }

    /// Ends it with SIGTERM and returns its exit code and the rest of its log.
    pub fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a child can be sent signals");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return (status.code(), self.log.iter().collect());
            }
            assert!(Instant::now() < deadline, "the service does not end on SIGTERM");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // An error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
