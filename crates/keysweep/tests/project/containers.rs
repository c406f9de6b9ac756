//! Files for containers. The tests run no container: they parse the files and compare them with the binary.

use std::{collections::BTreeSet, fs, process::Command};

use keysweep_harness::Installation;
use serde_json::Value;

use crate::common::root;

const BINARY: &str = env!("CARGO_BIN_EXE_keysweep");

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns the documents of a YAML file.
fn documents(file: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Returns the JSON array of the last instruction of this name in the Dockerfile.
fn instruction(word: &str) -> Vec<String> {
    let dockerfile = read("Dockerfile");
    let line = dockerfile.lines().rev().find_map(|line| line.strip_prefix(word));
    let line = line.unwrap_or_else(|| panic!("the Dockerfile has no {word}"));
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{word} {line}: {error}"))
}

fn strings(list: &Value) -> Vec<String> {
    let list = list.as_array().unwrap_or_else(|| panic!("{list} is no list"));
    list.iter().map(|item| item.as_str().unwrap_or_else(|| panic!("{item} is no text")).to_owned()).collect()
}

fn deployment() -> Value {
    let all = documents("deploy/kubernetes/keysweep.yaml");
    all.into_iter().find(|document| document["kind"] == "Deployment").expect("a deployment")
}

/// Asserts that the binary accepts these arguments, by a missing config file being the only error.
fn assert_accepted(arguments: &[String]) {
    let installation = Installation::new(BINARY);
    let mut all: Vec<&str> = arguments.iter().map(String::as_str).collect();
    all.extend(["--config", "/absent/keysweep.toml"]);
    let output = installation.run(&all);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/absent/keysweep.toml") && !said.contains("Usage"), "{all:?}: {said}");
}

#[test]
fn every_file_is_yaml_and_says_what_it_is() {
    let compose = &documents("deploy/compose.yml")[0];
    let services: BTreeSet<&str> =
        compose["services"].as_object().expect("services").keys().map(String::as_str).collect();
    assert_eq!(services, BTreeSet::from(["grafana", "keysweep-1", "keysweep-2", "postgres", "prometheus", "valkey"]));
    for name in ["keysweep-1", "keysweep-2"] {
        let service = &compose["services"][name];
        assert_eq!(service["image"], "keysweep:local", "{name} is merged with the common settings");
        // Other machines cannot reach any port by default.
        assert!(strings(&service["ports"]).iter().all(|port| port.starts_with("127.0.0.1:")), "{name}");
    }
    let kinds: Vec<String> = ["deploy/kubernetes/keysweep.yaml", "deploy/kubernetes/monitoring.yaml"]
        .iter()
        .flat_map(|file| documents(file))
        .map(|document| {
            assert!(document["apiVersion"].is_string() && document["metadata"]["name"] == "keysweep", "{document}");
            assert_eq!(document["metadata"]["namespace"], "keysweep", "{document}");
            document["kind"].as_str().expect("a kind").to_owned()
        })
        .collect();
    assert_eq!(
        kinds,
        ["ServiceAccount", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"]
    );
    for file in ["datasources/prometheus.yml", "dashboards/keysweep.yml"] {
        assert_eq!(documents(&format!("deploy/grafana/provisioning/{file}"))[0]["apiVersion"], 1, "{file}");
    }
}

#[test]
fn the_examples_are_guarded() {
    let compose = &documents("deploy/compose.yml")[0];
    let password = compose["services"]["grafana"]["environment"]["GF_SECURITY_ADMIN_PASSWORD"].as_str();
    assert!(password.is_some_and(|password| password.contains(":?")), "Grafana's own password is admin");
    let limits = deployment()["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"].clone();
    assert!(limits["cpu"].is_string() && limits["memory"].is_string(), "{limits}");
    assert!(read("deploy/kubernetes/keysweep.yaml").contains("sslmode=verify-full"));
    let policy = documents("deploy/kubernetes/keysweep.yaml");
    let policy = policy.iter().find(|document| document["kind"] == "NetworkPolicy").expect("a policy");
    let labels = &deployment()["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&policy["spec"]["podSelector"]["matchLabels"], labels, "it selects the pods");
    assert!(policy["spec"]["egress"].to_string().contains("169.254.0.0/16"), "{policy}");
}

#[test]
fn every_flag_that_a_container_is_started_with_exists() {
    assert_eq!(instruction("ENTRYPOINT "), ["/usr/bin/keysweep"]);
    assert_accepted(&instruction("CMD "));
    assert_accepted(&strings(&deployment()["spec"]["template"]["spec"]["containers"][0]["args"]));
}

#[test]
fn every_variable_that_a_container_is_given_is_one_that_keysweep_reads() {
    let help = Command::new(BINARY).args(["serve", "--help"]).output().expect("it starts");
    let help = String::from_utf8_lossy(&help.stdout).into_owned();
    let mut seen = 0;
    for file in
        ["Dockerfile", "deploy/compose.yml", "deploy/kubernetes/keysweep.yaml", "deploy/systemd/keysweep.service"]
    {
        let text = read(file);
        let words = text.split(|c: char| !c.is_ascii_uppercase() && c != '_');
        for word in words.filter(|word| word.starts_with("KEYSWEEP_")) {
            // Logging reads the first, compose reads the others.
            let known = ["KEYSWEEP_LOG", "KEYSWEEP_DB_PASSWORD", "KEYSWEEP_GRAFANA_PASSWORD"].contains(&word);
            assert!(
                known || help.split(|c: char| !c.is_ascii_uppercase() && c != '_').any(|name| name == word),
                "{file}: nothing reads {word}"
            );
            seen += 1;
        }
    }
    assert!(seen > 8, "only {seen} were found");
}

#[test]
fn ports_users_and_versions_agree() {
    let dockerfile = read("Dockerfile");
    let manifest: toml::Value = toml::from_str(&read("Cargo.toml")).expect("a manifest");
    let package = &manifest["workspace"]["package"];
    let rust = package["rust-version"].as_str().expect("a version");
    assert!(dockerfile.contains(&format!("rust:{rust}-")), "the image is built with Rust {rust}");
    let pod = deployment()["spec"]["template"]["spec"].clone();
    let version = package["version"].as_str().expect("a version");
    assert_eq!(pod["containers"][0]["image"], format!("keysweep:{version}"));
    let user = pod["securityContext"]["runAsUser"].to_string();
    assert!(dockerfile.contains(&format!("\nUSER {user}:{user}\n")), "one user in the image and the pod");
    assert_eq!(pod["securityContext"]["fsGroup"].to_string(), user, "the group can read the key");
    let arguments = strings(&pod["containers"][0]["args"]).join(" ");
    for port in pod["containers"][0]["ports"].as_array().expect("ports") {
        let port = port["containerPort"].to_string();
        assert!(arguments.contains(&format!("0.0.0.0:{port}")), "{port}");
        let exposed = dockerfile.lines().find_map(|line| line.strip_prefix("EXPOSE ")).expect("ports");
        assert!(exposed.split(' ').any(|exposed| exposed == port), "{port}");
    }
    let scraped = &documents("deploy/prometheus/prometheus.yml")[0]["scrape_configs"][0];
    assert_eq!(scraped["job_name"], "keysweep", "as alerts and dashboard expect it");
    assert_eq!(strings(&scraped["static_configs"][0]["targets"]), ["keysweep-1:7081", "keysweep-2:7081"]);
}

/// Returns whether a pattern of .dockerignore matches this path; without `**/` a pattern starts at the root.
fn matches(pattern: &str, path: &str) -> bool {
    let like = |pattern: &str, name: &str| match pattern.split_once('*') {
        Some((head, tail)) => match tail.strip_suffix('*') {
            Some(middle) => name.strip_prefix(head).is_some_and(|rest| rest.contains(middle)),
            None => name.strip_prefix(head).is_some_and(|rest| rest.ends_with(tail)),
        },
        None => name == pattern,
    };
    match pattern.strip_prefix("**/") {
        Some(pattern) => path.split('/').any(|name| like(pattern, name)),
        None => !path.contains('/') && like(pattern, path) || path == pattern,
    }
}

#[test]
fn secrets_and_databases_of_every_folder_stay_out_of_the_image() {
    let ignored = read(".dockerignore");
    for path in [
        "keysweep.key",
        "deploy/keysweep.key",
        "keysweep.db",
        "deploy/data/keysweep.db",
        "deploy/keysweep.db-wal",
        "deploy/postgres.password",
        "deploy/grafana.password",
        "deploy/key.json",
    ] {
        assert!(ignored.lines().any(|pattern| matches(pattern, path)), "{path} would get into the image");
    }
    for path in ["Cargo.toml", "crates/keysweep/src/main.rs", "deploy/compose.yml"] {
        assert!(!ignored.lines().any(|pattern| matches(pattern, path)), "{path} is needed");
    }
}

#[test]
fn workflows_and_issue_templates_are_yaml_and_call_targets_that_exist() {
    let makefile = read("Makefile");
    let mut calls = 0;
    for file in ["ci", "release"] {
        let workflow = &documents(&format!(".github/workflows/{file}.yml"))[0];
        let job = &workflow["jobs"][file];
        let limit = job["timeout-minutes"].as_u64();
        assert!(limit.is_some_and(|minutes| minutes <= 90) && workflow["on"].is_object(), "{file}.yml");
        assert!(workflow["permissions"].is_object(), "{file}.yml has all permissions of its token");
        let steps = job["steps"].as_array().expect("steps");
        for step in steps {
            let action = step["uses"].as_str();
            assert_ne!(action.is_some(), step["run"].is_string(), "{file}.yml: a step runs something: {step}");
            assert!(action.is_none_or(|action| action.contains("@v")), "{file}.yml: {step} has no version");
        }
        for target in steps.iter().filter_map(|step| step["run"].as_str()?.strip_prefix("make ")) {
            assert!(makefile.contains(&format!("\n{target}:")), "{file}.yml calls make {target}");
            calls += 1;
        }
    }
    assert_eq!(calls, 3);
    let release = read(".github/workflows/release.yml");
    assert!(release.contains("target/dist/*") && read("scripts/release").contains("dist=target/dist\n"), "{release}");
    for requirement in read("scripts/requirements-release.txt").lines().filter(|line| !line.starts_with('#')) {
        assert!(requirement.contains("=="), "{requirement} is not pinned");
    }
    for file in ["bug", "feature"] {
        let template = &documents(&format!(".github/ISSUE_TEMPLATE/{file}.yml"))[0];
        assert!(template["body"].as_array().is_some_and(|body| !body.is_empty()), "{file}.yml");
    }
}
