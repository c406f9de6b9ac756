//! Metrics of a real service: the figures of a real scan, in a format that promtool accepts.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use keysweep_harness::{Churn, DataSet, Fault, Flavor, Proxy, Server, Service, eventually, installation};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::Value;
use sqlx::{Connection, SqliteConnection};

use crate::common::root;

const SERVE: &[&str] = &["--no-auth", "--metrics-listen", "127.0.0.1:0"];

/// Runs promtool with `input` on its standard input. An error holds its output.
fn promtool(arguments: &[&str], input: &str) -> Result<(), String> {
    let binary = root().join(".cache/promtool/promtool");
    assert!(binary.exists(), "{} is not there: run scripts/promtool", binary.display());
    let mut command = Command::new(binary);
    command.args(arguments).current_dir(root()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("promtool starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("promtool reads");
    let output = child.wait_with_output().expect("promtool ends");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said) }
}

/// Samples of a scrape, by name and labels.
struct Samples(BTreeMap<String, f64>);

impl Samples {
    fn of(service: &Service) -> Self {
        Self::read(&service.scrape())
    }

    fn read(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?} is no sample"));
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line:?} has no number")))
        });
        Self(samples.collect())
    }

    fn get(&self, name: &str) -> f64 {
        *self.0.get(name).unwrap_or_else(|| panic!("{name} is not among {:#?}", self.0.keys()))
    }
}

/// Scans the instance once; returns the finished task.
fn scan(service: &Service, project: &str, instance: &str) -> Value {
    service.wait_until_finished(&service.scan(project, instance))
}

#[test]
fn the_metrics_match_the_report_of_a_scan() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(20_000).stale(60_000).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(SERVE);
    let task = scan(&service, &project, &instance);
    let report = &task["report"];
    assert_eq!(task["keys_reclaimed"], loaded.stale);

    // The task is counted after it is written, and readable before that.
    let samples = eventually("the finished task is counted", Duration::from_secs(10), || {
        let samples = Samples::of(&service);
        samples.0.keys().any(|name| name.starts_with("keysweep_scan_duration_seconds_count")).then_some(samples)
    });
    let of = |name: &str| samples.get(&format!("keysweep_{name}{{instance_id=\"{instance}\"}}"));
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("{value} is no number"));
    assert_eq!(of("keys_reclaimed_total"), loaded.stale as f64);
    assert_eq!(of("keys_scanned_total"), number(&report["keys_scanned"]));
    assert_eq!(of("slice_duration_seconds_count"), number(&report["slices"]));
    // A slice is observed with the cost that is known then; the report corrects the sum by the server's own counters.
    let (observed, corrected) = (of("slice_duration_seconds_sum"), number(&report["server_seconds"]));
    assert!(observed > corrected / 3.0 && observed < corrected * 3.0, "{observed} and {corrected}");
    assert!((of("scan_duration_seconds_sum") - number(&report["elapsed_seconds"])).abs() < 1e-6);
    assert_eq!(of("scan_duration_seconds_count"), 1.0);
    assert!((of("scan_cpu_ratio") - number(&report["cpu_share"])).abs() < 1e-9);
    assert_eq!(of("backoffs_total"), number(&report["backoffs"]));
    let memory = number(&report["used_memory_before"]) - number(&report["used_memory_after"]);
    assert!(memory > 0.0, "{report:#}");
    assert_eq!(of("memory_reclaimed_bytes_total"), memory);
    assert_eq!(samples.get("keysweep_tasks_finished_total{outcome=\"success\"}"), 1.0);
    assert_eq!(samples.get("keysweep_task_wait_seconds_count"), 1.0);
    assert_eq!(samples.get("keysweep_scans_running"), 0.0);

    // Gauges from the store.
    assert_eq!(samples.get("keysweep_store_up"), 1.0);
    assert_eq!(samples.get("keysweep_tasks{status=\"running\"}"), 0.0);
    assert_eq!(of("instance_reachable"), 1.0);
    let finished: jiff::Timestamp = task["finished_at"].as_str().expect("a time").parse().expect("a time");
    assert!((of("instance_last_success_timestamp_seconds") - finished.as_second() as f64).abs() < 1.5);
    eventually("the poll after the scan is shown", Duration::from_secs(15), || {
        let keys = Samples::of(&service).get(&format!("keysweep_instance_keys{{instance_id=\"{instance}\"}}"));
        (keys == loaded.live as f64).then_some(())
    });

    // Metrics of the process.
    let cpu = samples.get("process_cpu_seconds_total");
    assert!(cpu > 0.0 && cpu <= service.cpu().as_secs_f64() + 0.02, "{cpu}");
    assert!(samples.get("process_resident_memory_bytes") > 1e6);
    assert!(samples.get("process_open_fds") > 5.0);
    let age = jiff::Timestamp::now().as_second() as f64 - samples.get("process_start_time_seconds");
    assert!((-2.0..120.0).contains(&age), "{age}");
    assert!(samples.get("keysweep_store_write_duration_seconds_count") >= 3.0);
}

#[test]
fn a_service_allows_itself_the_open_files_that_the_system_permits() {
    // A service inherits the limits of its test, which has a process of its own.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(1_024), ..limit }).expect("a lower limit");
    let service = installation!().serve(SERVE);
    let permitted = limit.maximum.map_or(65_536, |most| most.min(65_536));
    assert_eq!(Samples::of(&service).get("process_max_fds"), permitted as f64);
}

#[test]
fn promtool_accepts_the_metrics() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(2_000).stale(1_000).load(&server);
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(SERVE);
    scan(&service, &project, &instance);
    let text = service.scrape();
    promtool(&["check", "metrics"], &text).unwrap_or_else(|said| panic!("{said}"));
    promtool(&["check", "metrics"], "keysweep_camelCase 1\n").expect_err("promtool checks names");
    // One metric has the names of instances and projects; addresses and ids of projects are nowhere.
    let named = format!(r#"keysweep_instance_info{{instance_id="{instance}",name="cache",project="test"}} 1"#);
    assert!(text.lines().any(|line| line == named), "{text}");
    let other: Vec<_> = text.lines().filter(|line| !line.starts_with("keysweep_instance_info{")).collect();
    for secret in ["cache", "127.0.0.1", &project] {
        assert!(!other.join("\n").contains(secret), "the metrics contain {secret}");
    }
}

/// Returns names and types of all metrics, from a service that has used each of them.
fn all_metrics() -> BTreeMap<String, String> {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(2_000).stale(1_000).load(&server);
    let _replica = server.replica();
    let installation = installation!();
    let (project, instance) = installation.register(&server.url());
    let service = installation.serve(SERVE);
    let own = format!("/api/v1/projects/{project}/instances/{instance}");
    scan(&service, &project, &instance);
    // The interval appears once scans are due.
    let first = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(2);
    let config = format!(
        r#"{{"enable_auto_scan": true, "first_scan_at": "{first:.3}", "interval": 60, "timeout": 7200, "scan_keys_count": 10}}"#
    );
    let path = format!("/v2/{project}/instances/{instance}/scan-expire-keys/autoscan-config");
    let answer = service.send("PUT", &path, &[("content-type", "application/json")], &config);
    assert!(answer.status < 300, "{answer:?}");
    let body = r#"{"below": 0.05}"#;
    let answer = service.send("PATCH", &format!("{own}/auto-scan"), &[("content-type", "application/json")], body);
    assert!(answer.status < 300, "{answer:?}");
    // The mean between two scans needs another one, after the schedule has seen the first.
    eventually("the first scan is seen", Duration::from_secs(15), || {
        service.get(&format!("{own}/auto-scan"))["adaptive"]["found_share"].as_f64()
    });
    scan(&service, &project, &instance);
    // The schedule is checked at once after a change of the instance.
    let labels = r#"{"labels": {"env": "test"}}"#;
    let answer = service.send("PATCH", &own, &[("content-type", "application/json")], labels);
    assert!(answer.status < 300, "{answer:?}");
    // On a replica an estimate measures everything that a metric shows, if keys expire.
    redis::cmd("DEBUG").arg("SET-ACTIVE-EXPIRE").arg(1).exec(&mut server.connection()).expect("the cycle runs");
    let _churn = Churn::start(&server, 4_000, Duration::from_secs(4));
    eventually("the expiry of keys is measured", Duration::from_secs(60), || {
        let answer = service.request("POST", &format!("{own}/estimate"));
        assert!(answer.status < 300, "{answer:?}");
        answer.body["total"]["predicted_share"].as_f64()
    });
    let hold = r#"{"level": "advise", "interval_seconds": 1}"#;
    let path = format!("/api/v1/projects/{project}/instances/{instance}/hold");
    let answer = service.send("PUT", &path, &[("content-type", "application/json")], hold);
    assert!(answer.status < 300, "{answer:?}");
    let shown = [
        "keysweep_scan_duration_seconds_count",
        "keysweep_instance_target_share{",
        "keysweep_stale_share_low{",
        "keysweep_mean_stale_share{",
        "keysweep_cycle_stall_seconds{",
        "keysweep_hold_writes_total{",
    ];
    let text = eventually("the task is counted, and a scan due", Duration::from_secs(15), || {
        Some(service.scrape()).filter(|text| shown.iter().all(|name| text.contains(name)))
    });
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

#[test]
fn every_metric_is_documented_and_every_documented_metric_exists() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the page");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let documented: BTreeMap<String, String> =
        rows.map(|(name, rest)| (name.to_owned(), rest.split(' ').next().unwrap_or_default().to_owned())).collect();
    assert_eq!(documented, all_metrics());
}

/// Returns the names of metrics in a text, without the suffixes of histograms.
fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("keysweep_") || word.starts_with("process_"));
    let endings = ["_bucket", "_sum", "_count"];
    names.map(|name| endings.iter().find_map(|ending| name.strip_suffix(ending)).unwrap_or(name).to_owned()).collect()
}

#[test]
fn the_dashboard_and_the_alerts_name_only_metrics_that_exist() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the page");
    // Another test compares that page with the binary.
    let known = named_in(&page);
    for file in ["deploy/grafana/keysweep.json", "deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml"] {
        let text = std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let named = named_in(&text);
        assert!(named.len() > 2, "{file} names hardly any");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{file} names {unknown:?}, which do not exist");
    }
}

#[test]
fn the_dashboard_shows_every_metric_but_those_that_its_page_leaves_out() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the page");
    let dashboard = std::fs::read_to_string(root().join("deploy/grafana/keysweep.json")).expect("the dashboard");
    let (before, after) = page.split_once("which shows all metrics but").expect("the sentence");
    let left_out = named_in(after.split_once("Both expect").expect("its end").0);
    let all: BTreeSet<String> = named_in(before).into_iter().chain(named_in(after)).collect();
    let shown = named_in(&dashboard);
    let missing: Vec<_> = all.difference(&shown).filter(|name| !left_out.contains(*name)).collect();
    assert!(missing.is_empty(), "the dashboard lacks {missing:?}");
    assert_eq!(left_out.len(), 3);
}

#[test]
fn prometheus_accepts_every_query_of_the_dashboard() {
    let text = std::fs::read_to_string(root().join("deploy/grafana/keysweep.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let queries: Vec<&str> = queries.map(|target| target["expr"].as_str().expect("a query")).collect();
    assert!(queries.len() > 15, "{queries:?}");
    // promtool checks queries as rules; Grafana replaces its variables before it sends a query.
    let rules = queries.iter().enumerate().map(|(number, query)| {
        let query = query.replace("$__rate_interval", "5m").replace("$instance_id", ".*");
        format!("      - record: query{number}\n        expr: {}\n", Value::from(query))
    });
    let rules = format!("groups:\n  - name: dashboard\n    rules:\n{}", rules.collect::<String>());
    let folder = tempfile::TempDir::new().expect("a folder");
    let file = folder.path().join("rules.yml");
    std::fs::write(&file, rules).expect("written");
    promtool(&["check", "rules", file.to_str().expect("UTF-8")], "").unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn promtool_accepts_the_alerts_and_their_tests_pass() {
    promtool(&["check", "rules", "deploy/prometheus/alerts.yml"], "").unwrap_or_else(|said| panic!("{said}"));
    promtool(&["check", "config", "deploy/prometheus/prometheus.yml"], "").unwrap_or_else(|said| panic!("{said}"));
    promtool(&["test", "rules", "deploy/prometheus/alerts_test.yml"], "").unwrap_or_else(|said| panic!("{said}"));
    let read = |name: &str| std::fs::read_to_string(root().join("deploy/prometheus").join(name)).expect("a text");
    let (rules, tests) = (read("alerts.yml"), read("alerts_test.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 5, "the search finds too little");
    for alert in alerts {
        let named = format!("alertname: {alert}\n");
        let tried: Vec<bool> =
            tests.split(&named).skip(1).map(|rest| rest.trim_start().starts_with("exp_alerts:")).collect();
        assert!(tried.contains(&true), "alerts_test.yml has no case in which {alert} fires");
    }
}

#[test]
fn an_alert_of_an_instance_carries_its_name_and_project() {
    let rules = std::fs::read_to_string(root().join("deploy/prometheus/alerts.yml")).expect("the rules");
    let (mut of_instances, mut wrong) = (0, Vec::new());
    for rule in rules.split("- alert: ").skip(1) {
        let alert = rule.lines().next().unwrap_or_default();
        let (expression, annotations) = rule.split_once("annotations:").expect("annotations");
        if annotations.contains("$labels.instance_id") {
            wrong.push(format!("{alert} shows an id"));
        }
        if expression.contains("(instance_id)") {
            of_instances += 1;
            let joins = "* on (instance_id) group_left (name, project)\n          max by (instance_id, name, project) (keysweep_instance_info)";
            if !expression.contains(joins) || !annotations.contains("{{ $labels.name }} ({{ $labels.project }})") {
                wrong.push(format!("{alert} does not show the name of its instance"));
            }
        }
    }
    assert!(of_instances >= 8, "{of_instances} alerts are of instances; the search finds too little");
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn metrics_and_the_api_never_share_a_listener() {
    let installation = installation!();
    let service = installation.serve(SERVE);
    assert_eq!(service.request("GET", "/metrics").status, 404);
    let metrics = service.metrics.as_deref().expect("an address");
    for probe in ["/healthz", "/readyz"] {
        // Clients of the API cannot keep these from being answered here.
        assert_eq!(ureq::get(metrics.replace("/metrics", probe)).call().expect(probe).status(), 200);
    }
    for path in ["/openapi.json", "/v3", "/"] {
        let error = ureq::get(metrics.replace("/metrics", path)).call().expect_err(path);
        assert!(matches!(error, ureq::Error::StatusCode(404)), "{path}: {error}");
    }
    let error = ureq::post(metrics).send_empty().expect_err("read-only");
    assert!(matches!(error, ureq::Error::StatusCode(405)), "{error}");
    assert!(installation.serve(&["--no-auth"]).metrics.is_none(), "off unless asked for");
}

#[test]
fn metrics_for_other_machines_require_insecure_http() {
    let installation = installation!();
    for command in ["serve", "worker"] {
        let output = installation.run(&[command, "--metrics-listen", "0.0.0.0:0"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains("--insecure-http") && said.contains("0.0.0.0:0"), "{said}");
    }
}

#[tokio::test]
async fn a_lost_lease_is_counted_once() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(50_000).stale(50_000).load(&server);
    server.watch_expired_keys();
    let proxy = Proxy::before(&server);
    let installation = installation!();
    let (project, instance) = installation.register_with(&proxy.url(), &["--pace", "gentle"]);
    let service = installation.serve(SERVE);
    service.scan(&project, &instance);
    let scanned = format!("keysweep_keys_scanned_total{{instance_id=\"{instance}\"}}");
    eventually("the scan runs", Duration::from_secs(10), || {
        Samples::of(&service).0.get(&scanned).is_some_and(|keys| *keys > 0.0).then_some(())
    });
    assert_eq!(Samples::of(&service).get("keysweep_lease_losses_total"), 0.0);
    // The scan waits for the reply to its slice after the stop, for longer than the heartbeat interval.
    proxy.set(Fault::Stall);
    let url = format!("sqlite:{}", installation.database().display());
    let mut database = SqliteConnection::connect(&url).await.expect("it opens");
    let taken = sqlx::query("UPDATE lease SET owner = 'another', epoch = epoch + 1").execute(&mut database).await;
    assert_eq!(taken.expect("written").rows_affected(), 1);
    eventually("the loss is counted", Duration::from_secs(10), || {
        let samples = Samples::of(&service);
        (samples.get("keysweep_lease_losses_total") == 1.0 && samples.get("keysweep_scans_running") == 0.0)
            .then_some(())
    });
}

#[test]
fn while_the_database_is_unavailable_fleet_gauges_are_absent() {
    let installation = installation!();
    let service = installation.serve(SERVE);
    crate::common::break_database(&installation);
    eventually("the database is reported as unavailable", Duration::from_secs(15), || {
        let samples = Samples::of(&service);
        (samples.get("keysweep_store_up") == 0.0).then(|| {
            assert!(!samples.0.contains_key("keysweep_tasks{status=\"waiting\"}"), "a stale value would look current");
            samples.get("process_resident_memory_bytes");
        })
    });
}
