//! Inventories that are read, and ones that are refused.

use std::path::Path;

use rstest::rstest;

use super::*;

fn parse(text: &str) -> Result<Inventory, InventoryError> {
    Inventory::parse(text, Path::new("fleet.yaml"))
}

#[test]
fn servers_are_read_with_labels_and_secrets() {
    let folder = tempfile::TempDir::new().expect("a folder");
    fs::write(folder.path().join("carts.secret"), "hunter2\n").expect("written");
    let path = folder.path().join("fleet.yaml");
    fs::write(
        &path,
        "instances:
  - name: sessions
    url: redis://10.0.0.7:6379/2
    labels: {env: prod, team: web}
  - name: carts
    url: redis-sentinel://10.0.0.8/main
    username: sweeper
    password_file: carts.secret
    address_map: 10.0.0.9=127.0.0.1
",
    )
    .expect("written");
    let mut inventory = Inventory::read(&path).expect("an inventory");
    let [sessions, carts] = inventory.entries.as_slice() else { panic!("{inventory:?}") };
    assert_eq!((sessions.name.as_str(), carts.name.as_str()), ("sessions", "carts"));
    let target = sessions.target().expect("a target");
    assert_eq!((target.database, target.credentials.username), (Some(2), None));
    let target = carts.target().expect("a target");
    assert_eq!(target.credentials.username.as_deref(), Some("sweeper"));
    assert!(target.credentials.password.is_some(), "relative to the folder of the file");
    assert!(!format!("{carts:?}").contains("hunter2"));
    inventory.select(&["env=prod".parse().expect("a label")]);
    assert_eq!(inventory.entries.len(), 1);
}

#[rstest]
#[case::an_unknown_field(
    "instances:\n  - name: a\n    url: redis://h\n    passwort: hunter2\n",
    4,
    "unknown field \"passwort\""
)]
#[case::an_unknown_field_at_the_top("instances: []\nservers: hunter2\n", 2, "unknown field \"servers\"")]
#[case::a_missing_field("instances:\n  - name: a\n", 2, "missing field \"url\"")]
#[case::a_password_in_a_url("instances:\n  - name: a\n    url: redis://:hunter2@h\n", 2, "password_file")]
#[case::no_url("instances:\n  - name: a\n    url: hunter2\n", 2, "url: ")]
#[case::the_same_name(
    "instances:\n  - name: a\n    url: redis://h\n  - name: a\n    url: redis://i\n",
    4,
    "line 2 has it already"
)]
#[case::the_same_field("instances:\n  - name: a\n    name: b\n    url: redis://h\n", 3, "twice")]
#[case::an_invalid_label("instances:\n  - name: a\n    url: redis://h\n    labels: {env: a b}\n", 2, "invalid label")]
#[case::an_invalid_name("instances:\n  - name: ''\n    url: redis://h\n", 2, "invalid name")]
#[case::two_passwords(
    "instances:\n  - {name: a, url: redis://h, password_file: x, password_env: Y}\n",
    2,
    "one of the two"
)]
#[case::another_type("instances:\n  - name: a\n    url: [hunter2]\n", 3, "")]
#[case::no_yaml("instances: [hunter2", 0, "")]
#[case::no_list("hunter2", 0, "")]
#[case::nothing("", 0, "")]
fn an_error_names_file_line_and_field_and_no_secret(#[case] text: &str, #[case] line: u64, #[case] words: &str) {
    let error = parse(text).expect_err(text).to_string();
    assert!(error.starts_with("fleet.yaml") && error.contains(words), "{error}");
    assert!(line == 0 || error.contains(&format!("line {line}:")), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_secret_that_cannot_be_read_is_named() {
    let entry = |secret: &str| {
        let text = format!("instances:\n  - name: carts\n    url: redis://h\n    {secret}\n");
        let error = parse(&text).expect("an inventory").entries[0].target().expect_err("no secret");
        error.to_string()
    };
    let missing = entry("password_file: /nonexistent/secret");
    assert!(missing.starts_with("fleet.yaml, line 2: instance \"carts\": password_file /nonexistent"), "{missing}");
    let unset = entry("password_env: KEYSWEEP_TEST_UNSET_VARIABLE");
    assert!(unset.contains("password_env: the variable KEYSWEEP_TEST_UNSET_VARIABLE is not set"), "{unset}");
    assert!(entry("username: sweeper").contains("username: needs a password"));
    assert!(entry("ca_file: /nonexistent/ca.pem").contains("ca_file /nonexistent/ca.pem"));
    assert!(entry("server_name: h").contains("rediss://"), "a setting that the URL has no use for");
}

#[test]
fn aliases_do_not_multiply() {
    let mut text = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for (name, of) in ["b", "c", "d", "e", "f", "g", "h"].iter().zip(["a", "b", "c", "d", "e", "f", "g"]) {
        text.push_str(&format!("{name}: &{name} [{}]\n", vec![format!("*{of}"); 10].join(", ")));
    }
    assert!(parse(&text).is_err());
}
