//! Every environment variable and every field of the config file is read: an invalid value is rejected with a message about
//! it.

use std::{collections::BTreeSet, fs, process::Output};

use keysweep::config::FileConfig;
use keysweep_harness::installation;

use super::words;
use crate::common::root;

/// Variable, command, an invalid value, and a part of the error.
const VARIABLES: &[(&str, &str, &str, &str)] = &[
    ("KEYSWEEP_DATABASE", "serve", "mysql://h/d", "expected sqlite:PATH or postgres://"),
    ("KEYSWEEP_KEY_FILE", "admin project list", "/dev/null", "the key file /dev/null"),
    ("KEYSWEEP_CONFIG", "worker", "/absent/keysweep.toml", "--config /absent/keysweep.toml"),
    ("KEYSWEEP_ALLOWED_TARGETS", "admin project list", "cache.example", "--allowed-targets"),
    ("KEYSWEEP_LISTEN", "serve", "nowhere", "--listen"),
    ("KEYSWEEP_TLS_CERT", "serve", "/absent.pem", "--tls-cert and --tls-key must be given together"),
    ("KEYSWEEP_TLS_KEY", "serve", "/absent.key", "--tls-cert and --tls-key must be given together"),
    ("KEYSWEEP_PUBLIC_URL", "serve", "keysweep.example", "invalid --public-url \"keysweep.example\""),
    ("KEYSWEEP_REGION", "serve", " ", "--region"),
    ("KEYSWEEP_DOMAIN", "serve", " ", "--domain"),
    ("KEYSWEEP_TRUSTED_PROXIES", "serve", "proxy.example", "--trusted-proxies"),
    ("KEYSWEEP_METRICS_LISTEN", "worker", "0.0.0.0:0", "--metrics-listen 0.0.0.0:0 is reachable"),
    ("KEYSWEEP_HISTORY_RETENTION", "worker", "0", "--history-retention"),
    ("KEYSWEEP_REPLY_MEMORY", "worker", "31", "--reply-memory"),
    ("KEYSWEEP_CONCURRENCY", "worker", "0", "--concurrency"),
    ("KEYSWEEP_HOST_CONCURRENCY", "worker", "0", "--host-concurrency"),
    ("KEYSWEEP_COPY_TO", "admin copy", "mysql://h/d", "expected sqlite:PATH or postgres://"),
    ("KEYSWEEP_ENDPOINT", "instance list", "redis://h", "http:// or https://"),
];

/// Variables covered by other tests, with their files.
const ELSEWHERE: &[(&str, &str)] = &[
    ("KEYSWEEP_PROJECT", "tests/cli/client.rs"),
    ("KEYSWEEP_ACCESS_KEY", "tests/cli/client.rs"),
    ("KEYSWEEP_SECRET_KEY", "tests/cli/client.rs"),
    ("KEYSWEEP_CREDENTIALS", "tests/cli/client.rs"),
    ("KEYSWEEP_CA_FILE", "tests/cli/client.rs"),
    ("KEYSWEEP_LOG", "tests/service/logs.rs"),
];

/// Field of the config file, an invalid value, and a part of the error.
const FIELDS: &[(&str, &str, &str)] = &[
    ("database", "'mysql://h/d'", "expected sqlite:PATH or postgres://"),
    ("key_file", "'/dev/null'", "the key file /dev/null"),
    ("listen", "'nowhere'", "keysweep.toml, line 2: "),
    ("allowed_targets", "['cache.example']", "--allowed-targets"),
    ("tls_cert", "'/absent.pem'", "--tls-cert and --tls-key must be given together"),
    ("tls_key", "'/absent.key'", "--tls-cert and --tls-key must be given together"),
    ("public_url", "'redis://h'", "invalid --public-url"),
    ("region", "' '", "--region"),
    ("domain", "' '", "--domain"),
    ("trusted_proxies", "['proxy.example']", "--trusted-proxies"),
    ("insecure_http", "'perhaps'", "keysweep.toml, line 2: "),
    ("metrics_listen", "'0.0.0.0:0'", "--metrics-listen 0.0.0.0:0 is reachable"),
    ("concurrency", "0", "--config: invalid concurrency 0"),
    ("host_concurrency", "0", "--config: invalid host_concurrency 0"),
    ("allow_clock_skew", "'perhaps'", "keysweep.toml, line 2: "),
    ("history_retention", "0", "--config: invalid history_retention 0"),
    ("reply_memory", "31", "--config: invalid reply_memory 31: expected a number of MiB from 32 to 65536"),
];

fn assert_refused(what: &str, output: &Output, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(words), "{what}: {said}");
}

#[test]
fn every_variable_is_read() {
    let mut left = words::variables();
    for (name, command, value, words) in VARIABLES {
        let installation = installation!();
        let mut command = installation.command(&command.split(' ').collect::<Vec<_>>());
        let output = command.env(name, value).output().expect("the binary starts");
        assert_refused(name, &output, words);
        left.remove(*name);
    }
    for (name, file) in ELSEWHERE {
        let text = fs::read_to_string(root().join("crates/keysweep").join(file)).expect("a test");
        assert!(text.contains(&format!("\"{name}\"")), "{file} does not set {name}");
        left.remove(*name);
    }
    assert_eq!(left, BTreeSet::new(), "no test sets these");
}

#[test]
fn every_field_of_the_config_file_is_read_and_documented() {
    // The Debug output of a configuration names every field.
    let shown = format!("{:?}", FileConfig::default());
    let names = shown.split(": None").filter_map(|piece| piece.rsplit([' ', ',']).next());
    let mut left: BTreeSet<&str> = names.filter(|name| !name.contains('}')).collect();
    assert!(left.contains("database"), "the search found no fields: {shown}");
    let page = words::command_line_pages();
    let row = page.lines().find(|line| line.starts_with("| `--config FILE`")).expect("the row of --config");
    for &(name, value, words) in FIELDS {
        assert!(left.remove(name), "there is no {name}");
        assert!(row.contains(&format!("`{name}`")), "the row of --config does not name {name}: {row}");
        let installation = installation!();
        let file = installation.folder().join("keysweep.toml");
        fs::write(&file, format!("# The line before it.\n{name} = {value}\n")).expect("written");
        let arguments = ["serve", "--listen", "127.0.0.1:0", "--config", file.to_str().expect("UTF-8")];
        let mut command = installation.command(&arguments);
        if name == "database" {
            // The variable takes precedence over the file.
            command.env_remove("KEYSWEEP_DATABASE");
        }
        assert_refused(name, &command.output().expect("the binary starts"), words);
    }
    assert_eq!(left, BTreeSet::new(), "no test sets these");
}
