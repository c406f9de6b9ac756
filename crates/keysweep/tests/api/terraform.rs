//! A client that behaves as the Terraform provider does: no Content-Type, Host unsigned, X-Project-Id added after signing,
//! every list read to its empty page, and a create that is sent again when the connection dies.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use keysweep_harness::{
    Answer, DataSet, Fault, Flavor, Installation, Proxy, Server, Service, Signer, id, installation,
};
use rstest::rstest;
use serde_json::{Value, json};
use sqlx::{Connection, SqliteConnection};

/// How long the client waits for a task to finish.
const TASK_TIMEOUT: Duration = Duration::from_secs(30);
/// History retention of manual scans.
const RETAINED: usize = 1_000;

/// Address of the service in the documents.
const DOCUMENTED: &str = "http://127.0.0.1:7080";

/// The Terraform example.
fn block() -> &'static str {
    let page = include_str!("../../../../docs/sdks-and-terraform.md");
    page.split("```hcl").nth(1).and_then(|rest| rest.split("\n```").next()).expect("an example")
}

/// Returns the value of an argument in the example.
fn example(argument: &str) -> String {
    let block = block();
    let pairs = block.lines().filter_map(|line| line.split_once('='));
    let mut values = pairs.filter(|(name, _)| name.trim() == argument).map(|(_, value)| value.trim().trim_matches('"'));
    let value = values.next().unwrap_or_else(|| panic!("the example does not set {argument}: {block}"));
    assert_eq!(values.next(), None, "{argument} is set twice: {block}");
    value.to_owned()
}

struct Client<'a> {
    service: &'a Service,
    signer: Signer,
    project: String,
    instance: String,
}

impl Client<'_> {
    fn headers(&self, method: &str, path: &str, body: &str) -> Vec<(String, String)> {
        let mut headers = self.signer.headers(method, path, body.as_bytes());
        headers.push(("X-Project-Id".into(), self.project.clone()));
        headers
    }

    fn answer(&self, method: &str, path: &str, body: &str) -> Answer {
        let headers = self.headers(method, path, body);
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.service.send(method, path, &headers, body)
    }

    fn call(&self, method: &str, path: &str) -> Answer {
        self.send(method, path, "")
    }

    fn send(&self, method: &str, path: &str, body: &str) -> Answer {
        let answer = self.answer(method, path, body);
        assert_eq!(answer.status, 200, "{method} {path}: {:?}", answer.body);
        let kind = answer.header("content-type").expect("a Content-Type");
        assert!(kind.starts_with("application/json"), "its pager refuses {kind}");
        answer
    }

    /// Returns a path below the endpoint of docs/sdks-and-terraform.md, which ends in a slash.
    fn path(&self, rest: &str) -> String {
        let endpoint = example("dcs").replace(DOCUMENTED, &self.service.base);
        let url = format!("{endpoint}v2/{}/instances/{}/{rest}", self.project, self.instance);
        url.strip_prefix(&self.service.base).expect("a URL of the service").to_owned()
    }

    fn create(&self) -> String {
        id(&self.call("POST", &self.path("scan-expire-keys-task")).body)
    }

    /// Sends a create and closes the connection before the answer arrives.
    fn create_without_answer(&self) {
        let path = self.path("scan-expire-keys-task");
        let host = self.service.base.strip_prefix("http://").expect("a plain URL");
        let mut request = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n");
        for (name, value) in self.headers("POST", &path, "") {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut connection = TcpStream::connect(host).expect("the service listens");
        connection.set_read_timeout(Some(TASK_TIMEOUT)).expect("a time that is not zero");
        connection.write_all(request.as_bytes()).expect("it reads");
        // The first byte of the answer proves that the service has handled the request.
        connection.read_exact(&mut [0]).expect("it answers");
        connection.shutdown(Shutdown::Both).expect("it is open");
    }

    /// Returns all records, page by page: no query first, then the number of records so far as offset, until a page is empty.
    fn records(&self) -> Vec<Value> {
        let path = self.path("auto-expire/histories");
        let mut all = Vec::new();
        loop {
            let page = if all.is_empty() { path.clone() } else { format!("{path}?offset={}", all.len()) };
            let body = self.call("GET", &page).body;
            let mut arrays = body.as_object().expect("an object").values().filter_map(Value::as_array);
            let records = arrays.next().expect("an array, though it be empty");
            assert!(arrays.next().is_none(), "its pager takes the only array there is");
            if records.is_empty() {
                return all;
            }
            all.extend_from_slice(records);
        }
    }

    /// Returns the record of the resource. A missing record fails the apply, or makes a refresh scan again.
    fn read(&self, id: &str) -> Value {
        let mut found = self.records().into_iter().filter(|record| record["id"] == id);
        let record = found.next().unwrap_or_else(|| panic!("{id} is in no page"));
        assert!(found.next().is_none(), "{id} is there twice");
        record
    }

    /// Waits for a task: success ends the wait, failed is an error, any other status is pending.
    fn wait(&self, id: &str) -> Value {
        let deadline = Instant::now() + TASK_TIMEOUT;
        loop {
            let record = self.read(id);
            match record["status"].as_str() {
                Some("success") => return record,
                Some("failed") => panic!("{record:#}"),
                _ => assert!(Instant::now() < deadline, "it stays {record:#}"),
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The access key of an operator.
fn robot(installation: &Installation, project: &str) -> Signer {
    installation.admin(&["user", "add", "robot", "--project", project, "--role", "operator"]);
    let key = installation.admin(&["access-key", "add", "--user", "robot"]);
    let text = |name: &str| key[name].as_str().expect("a text").to_owned();
    Signer { access: text("access"), secret: text("secret") }
}

/// Adds finished scans that look as if they ran a day ago.
#[tokio::main(flavor = "current_thread")]
async fn put_records(installation: &Installation, project: &str, instance: &str, number: usize) {
    let url = format!("sqlite:{}", installation.database().display());
    let mut database = SqliteConnection::connect(&url).await.expect("it opens");
    let put = sqlx::query(
        "WITH RECURSIVE number (n) AS (SELECT 1 WHERE ?1 > 0 UNION ALL SELECT n + 1 FROM number WHERE n < ?1)
         INSERT INTO task (id, project_id, instance_id, status, scan_type, created_at, started_at, finished_at, timeout_us,
                           released)
         SELECT printf('%032x', n), ?2, ?3, 'success', 'manual', (unixepoch() - 86400) * 1000000 + n,
                (unixepoch() - 86400) * 1000000 + n, (unixepoch() - 86400) * 1000000 + n, 0, 1
         FROM number",
    )
    .bind(i64::try_from(number).expect("a small number"))
    .bind(project)
    .bind(instance)
    .execute(&mut database)
    .await
    .expect("put");
    assert_eq!(put.rows_affected(), number as u64);
}

#[rstest]
#[case::no_record(0)]
#[case::one_record(1)]
#[case::exactly_a_page(10)]
#[case::a_page_and_one(11)]
#[case::as_many_as_are_kept(1_000)]
fn terraform_creates_polls_reads_and_refreshes(#[case] before: usize) {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(50).stale(20).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let signer = robot(&installation, &project);
    put_records(&installation, &project, &instance, before);
    let service = installation.serve(&[]);
    let client = Client { service: &service, signer, project, instance };
    assert_eq!(client.records().len(), before);

    let created = client.create();
    client.read(&created);
    let ended = client.wait(&created);
    assert_eq!(ended["num"].as_u64(), Some(loaded.stale));
    assert_eq!(client.read(&created), ended, "a refresh finds what the apply left");

    let records = client.records();
    assert_eq!(records.len(), RETAINED.min(before + 1));
    assert_eq!(records[0]["id"], created, "newest first");
    let mut ids: Vec<_> = records.iter().map(|record| record["id"].as_str().expect("an id")).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), records.len(), "no record is on two pages");
}

/// What the provider's instance resource sends and reads: an import block, then plan and apply of `expire_key_…`.
#[test]
fn terraform_imports_an_instance_and_sets_its_auto_scan_without_a_change_that_stays() {
    let server = Server::start(Flavor::Valkey91);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let signer = robot(&installation, &project);
    let service = installation.serve(&[]);
    let client = Client { service: &service, signer, project: project.clone(), instance: instance.clone() };
    let of_instance = |rest: &str| format!("/v2/{project}/instance/{instance}/{rest}");

    let shown = client.call("GET", client.path("").trim_end_matches('/')).body;
    assert_eq!(
        (&shown["instance_id"], &shown["name"], &shown["engine"]),
        (&json!(instance), &json!("cache"), &json!("Redis"))
    );
    // The provider's data source takes this number without asking whether it is there, and reads pages until an empty one.
    let list = format!("/v2/{project}/instances");
    let instances = client.call("GET", &list).body;
    assert_eq!(instances["instances"][0]["charging_mode"], 0, "{instances}");
    assert_eq!(client.call("GET", &format!("{list}?offset=1")).body["instances"], json!([]));
    let configs = client.call("GET", &client.path("configs")).body;
    assert_eq!(configs["redis_config"], json!([]), "its reader of parameters needs the list");
    let whitelist = client.call("GET", &of_instance("whitelist")).body;
    assert_eq!((&whitelist["enable_whitelist"], &whitelist["whitelist"]), (&json!(false), &json!([])));

    // The provider plans a change for as long as it reads another text than its file holds.
    let path = client.path("scan-expire-keys/autoscan-config");
    for first in [
        "2999-01-01T15:00:05.000z",
        "2999-01-01T15:00:05",
        "2999-01-01T15:00:05.000+00:00",
        "2999-01-01T23:00:05+08:00",
    ] {
        let body = json!({ "enable_auto_scan": true, "first_scan_at": first, "interval": 3600, "timeout": 7200,
                           "scan_keys_count": 20_000 });
        let put = client.send("PUT", &path, &body.to_string()).body;
        let read = client.call("GET", &path).body;
        assert_eq!((&put["first_scan_at"], &read["first_scan_at"]), (&json!(first), &json!(first)));
    }
    // A scan count that changes re-sends the stored text.
    let again = json!({ "enable_auto_scan": true, "first_scan_at": "2999-01-01T23:00:05+08:00", "interval": 3600,
                        "timeout": 7200, "scan_keys_count": 10 });
    assert_eq!(client.send("PUT", &path, &again.to_string()).body["first_scan_at"], "2999-01-01T23:00:05+08:00");

    // Two of its data sources ask for what keysweep lacks, and must not be told of an instance with a malformed id.
    for unknown in ["status", "statistic"] {
        let path = format!("/v2/{project}/instances/{unknown}");
        let answer = client.answer("GET", &path, "");
        assert_eq!((answer.status, &answer.body["error_code"]), (404, &json!("DCS.4001")), "{path}: {}", answer.body);
    }
}

#[test]
fn the_example_in_the_documents_satisfies_the_provider() {
    for service in ["dcs", "iam"] {
        // The provider appends a path that starts with its version.
        assert_eq!(example(service), format!("{DOCUMENTED}/"));
    }
    // By default the provider signs in at Huawei Cloud's own servers.
    assert_eq!(example("auth_url"), format!("{DOCUMENTED}/v3"));
    // Without a source Terraform looks for the provider under another name and finds none.
    assert_eq!(example("huaweicloud"), "{ source = \"huaweicloud/huaweicloud\" }");
    // The provider requires a region, and the resource requires the instance.
    assert!(!example("region").is_empty());
    for (argument, variable) in [
        ("project_id", "project_id"),
        ("access_key", "access"),
        ("secret_key", "secret"),
        ("instance_id", "instance_id"),
    ] {
        assert_eq!(example(argument), format!("var.{variable}"), "a file under version control must hold no secret");
        let declared = block().lines().any(|line| line.starts_with(&format!("variable \"{variable}\" {{")));
        assert!(declared, "{variable} is used and not declared");
    }
}

#[test]
fn terraforms_create_that_is_sent_again_over_a_cut_connection_makes_one_task() {
    // A server that accepts connections and answers slowly keeps the task active while the client retries.
    let server = Server::start(Flavor::Valkey91);
    let proxy = Proxy::before(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&proxy.url());
    proxy.set(Fault::Drip);
    let signer = robot(&installation, &project);
    let service = installation.serve(&[]);
    let client = Client { service: &service, signer, project, instance };

    for _ in 0..5 {
        client.create_without_answer();
    }
    let created = client.create();
    let records = client.records();
    assert_eq!(records.len(), 1, "{records:#?}");
    assert_eq!(records[0]["id"], created);
}
