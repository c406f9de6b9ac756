//! A running keysweep service, and the requests that tests send to it.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::postgres::cpu_time;

/// Longest wait for the service: for its start, its exit, a response, or a condition.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Returns the `id` of a JSON object.
pub fn id(answer: &Value) -> String {
    answer["id"].as_str().expect("an id").to_owned()
}

/// Reads a child's log in a separate thread, so that the child never blocks on a full pipe.
fn follow(child: &mut Child) -> Receiver<String> {
    let stderr = child.stderr.take().expect("a pipe");
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // The receiver may have been dropped by the test.
            let _ = sender.send(line);
        }
    });
    receiver
}

/// A running service. Killed on drop.
pub struct Service {
    child: Child,
    /// Base URL of the API.
    pub base: String,
    /// URL of the metrics, if the service exposes them.
    pub metrics: Option<String>,
    /// Shared by tests that send requests in several threads.
    log: Mutex<Receiver<String>>,
}

/// A response of the service.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Body as JSON, `Null` if it is not JSON.
    pub body: Value,
    /// Body as text.
    pub text: String,
}

impl Answer {
    fn of<B>(response: &ureq::http::Response<B>, text: String) -> Self {
        let text_of = |value: &ureq::http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let headers = response.headers().iter().map(|(name, value)| (name.to_string(), text_of(value))).collect();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Self { status: response.status().as_u16(), headers, body, text }
    }

    /// Returns the first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

impl Service {
    /// Starts a service with this command and waits until it accepts requests.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the binary starts");
        let log = follow(&mut child);
        let deadline = Instant::now() + TIMEOUT;
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
        Self { child, base: format!("http://{address}"), metrics, log: Mutex::new(log) }
    }

    /// Sends a request without a body, following redirects.
    pub fn request(&self, method: &str, path: &str) -> Answer {
        self.try_request(method, path).unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    /// Sends a request without a body, following redirects.
    ///
    /// # Errors
    /// If the service does not respond.
    pub fn try_request(&self, method: &str, path: &str) -> Result<Answer, ureq::Error> {
        let agent: ureq::Agent =
            ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).build().into();
        let url = format!("{}{path}", self.base);
        let mut response = match method {
            "GET" => agent.get(&url).call()?,
            "POST" => agent.post(&url).send_empty()?,
            "PUT" => agent.put(&url).send_empty()?,
            "DELETE" => agent.delete(&url).call()?,
            other => panic!("unsupported method {other}"),
        };
        let text = response.body_mut().read_to_string()?;
        Ok(Answer::of(&response, text))
    }

    /// Sends a request with headers and a body on a new connection. Follows no redirects.
    pub fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
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
        let text = response.body_mut().read_to_string().unwrap_or_default();
        Answer::of(&response, text)
    }

    /// Returns the metrics as text.
    pub fn scrape(&self) -> String {
        let url = self.metrics.as_ref().expect("the service was started with --metrics-listen");
        let mut response = ureq::get(url).call().unwrap_or_else(|error| panic!("{url}: {error}"));
        response.body_mut().read_to_string().expect("text")
    }

    /// Sends a GET, which must be answered with 200, and returns the JSON body.
    pub fn get(&self, path: &str) -> Value {
        let answer = self.request("GET", path);
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.body);
        answer.body
    }

    /// Repeats a GET until its JSON body meets the condition, and returns the body.
    pub fn wait_for(&self, path: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let body = self.get(path);
            if wanted(&body) {
                return body;
            }
            assert!(Instant::now() < deadline, "{path} is still {body:#}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Reads the log until a line contains these words, and returns that line.
    pub fn wait_for_log(&self, words: &str) -> String {
        let deadline = Instant::now() + TIMEOUT;
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let line = log.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|_| panic!("{words:?} is not in the log"));
            if line.contains(words) {
                return line;
            }
        }
    }

    /// Returns the process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the most memory that the process has held at a time (peak RSS), bytes.
    pub fn peak_memory(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Returns the memory that the process holds (RSS), bytes.
    pub fn resident_memory(&self) -> u64 {
        self.memory("VmRSS:")
    }

    fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a process");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field");
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
        kibibytes * 1024
    }

    /// Returns the CPU time of the service.
    pub fn cpu(&self) -> Duration {
        cpu_time(self.child.id() as i32, false)
    }

    /// Stops the process (SIGSTOP): connections stay open and get no replies.
    pub fn pause(&self) {
        kill_process(Pid::from_child(&self.child), Signal::STOP).expect("a child can be sent signals");
    }

    /// Continues the process after [`Service::pause`].
    pub fn resume(&self) {
        kill_process(Pid::from_child(&self.child), Signal::CONT).expect("a child can be sent signals");
    }

    /// Kills the service (SIGKILL).
    pub fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it can be waited for");
    }

    /// Shuts the service down (SIGTERM) and returns its exit code and the rest of its log.
    pub fn terminate(mut self) -> (Option<i32>, Vec<String>) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("a child can be sent signals");
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
                return (status.code(), log.iter().collect());
            }
            assert!(Instant::now() < deadline, "the service does not exit on SIGTERM");
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // An error means that the service has already exited.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
