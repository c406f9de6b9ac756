//! `keysweep scan` and the other commands as users and scripts run them: exit codes, output, signals.

use std::{
    fs,
    io::{Read, Write},
    process::{Command, Output, Stdio},
    time::Duration,
};

use keysweep_harness::{DataSet, Flavor, Installation, Server, eventually, free_port, installation};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::common::stderr;

fn size(server: &Server) -> u64 {
    redis::cmd("DBSIZE").query(&mut server.connection()).expect("a size")
}

#[test]
fn the_report_is_one_json_object_and_nothing_else_on_standard_output() {
    let server = Server::start(Flavor::Valkey91);
    let loaded = DataSet::new().live(30_000).stale(10_000).database(5).stale(7).load(&server);
    let output = installation!().run(&["scan", &server.url(), "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["outcome"], report["keys_reclaimed"].as_u64()), (&"done".into(), Some(loaded.stale)));
    let documented = [
        "target",
        "outcome",
        "reason",
        "exact",
        "keys_scanned",
        "keys_reclaimed",
        "used_memory_before",
        "used_memory_after",
        "rss_before",
        "rss_after",
        "elapsed_seconds",
        "server_seconds",
        "cpu_share",
        "pace",
        "slice_seconds",
        "probe_seconds",
        "backoffs",
        "throttled",
        "warnings",
        "shards",
    ];
    for field in documented {
        assert!(report.get(field).is_some(), "{field} is missing from {report:#}");
    }
    for field in ["p50", "p99", "max"] {
        assert!(report["slice_seconds"][field].as_f64().is_some_and(|seconds| seconds > 0.0), "{report:#}");
    }
    assert!(report["probe_seconds"]["baseline_p90"].as_f64().is_some_and(|seconds| seconds > 0.0), "{report:#}");
    assert_eq!(report["shards"][0]["databases"], serde_json::json!([0, 5]));
}

#[test]
fn the_report_on_the_terminal_shows_the_reclaimed_keys() {
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(200).stale(1_234).load(&server);
    let output = installation!().run(&["scan", &server.url()]);
    let text = String::from_utf8(output.stdout).expect("text");
    for words in ["keys reclaimed", "1,234", "exact", "redis 7.0.15", "used memory"] {
        assert!(text.contains(words), "{words:?} is not in\n{text}");
    }
}

#[rstest]
#[case::connection_refused("redis://127.0.0.1:{free}", 3, "connection refused")]
#[case::bad_scheme("http://127.0.0.1", 2, "use redis://")]
#[case::several_hosts("redis://127.0.0.1:7000,127.0.0.1:7001", 2, "redis-cluster://")]
#[case::no_password("redis://127.0.0.1:{locked}", 4, "REDISCLI_AUTH")]
#[case::wrong_password("redis://:wrong@127.0.0.1:{locked}", 4, "refuses the user or the password")]
fn a_failure_is_one_sentence_with_a_remedy_and_an_exit_code(#[case] url: &str, #[case] code: i32, #[case] words: &str) {
    let locked = Server::with(Flavor::Redis70).password("right").start();
    let url = url.replace("{free}", &free_port().to_string()).replace("{locked}", &locked.port().to_string());
    let output = installation!().run(&["scan", &url]);
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.starts_with("error: ") && error.contains(words) && error.lines().count() == 1, "{error}");
    assert!(output.stdout.is_empty() && !error.contains("wrong@"));
}

#[rstest]
#[case("16", "999", "has 16 databases, 0 to 15")]
#[case("16", "16", "has 16 databases, 0 to 15")]
#[case("16", "4294967295", "has 16 databases, 0 to 15")]
#[case("1", "1", "has database 0 only")]
#[case("300", "555", "has 300 databases, 0 to 299")]
fn a_missing_database_is_a_failure_that_names_the_existing_ones(
    #[case] databases: &str,
    #[case] database: &str,
    #[case] words: &str,
) {
    let server = Server::with(Flavor::Redis70).arg("--databases", databases).start();
    let url = format!("{}/{database}", server.url());
    for arguments in [&["scan"][..], &["scan", "--dry-run"]] {
        let output = installation!().run(&[arguments, &[&url]].concat());
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains(words), "{}", stderr(&output));
    }
}

#[test]
fn the_last_database_and_an_empty_one_are_scanned() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().database(15).live(10).stale(5).load(&server);
    for (database, reclaimed) in [(15, 5), (14, 0), (0, 0)] {
        let output = installation!().run(&["scan", "--json", &format!("{}/{database}", server.url())]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
        assert_eq!(report["keys_reclaimed"], reclaimed, "database {database}");
    }
}

#[test]
fn with_json_a_failure_is_a_report() {
    let output = installation!().run(&["scan", &format!("redis://127.0.0.1:{}", free_port()), "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["outcome"], &report["reason"]), (&"failed".into(), &"unreachable".into()));
}

#[test]
fn the_password_comes_from_the_environment_a_file_or_standard_input() {
    let server = Server::with(Flavor::Valkey91).password("s3cret").start();
    let url = format!("redis://127.0.0.1:{}", server.port());
    let installation = installation!();
    let by_environment =
        installation.command(&["scan", &url]).env("REDISCLI_AUTH", "s3cret").output().expect("it runs");
    assert_eq!(by_environment.status.code(), Some(0), "{}", stderr(&by_environment));

    let file = installation.folder().join("password");
    fs::write(&file, "s3cret\n").expect("a file");
    let by_file =
        installation.run(&["scan", &url, "--user", "default", "--password-file", &file.display().to_string()]);
    assert_eq!(by_file.status.code(), Some(0), "{}", stderr(&by_file));

    let by_stdin = run_with_input(&installation, &["scan", &url, "--password-stdin"], "s3cret\n");
    assert_eq!(by_stdin.status.code(), Some(0), "{}", stderr(&by_stdin));
}

fn run_with_input(installation: &Installation, arguments: &[&str], input: &str) -> Output {
    let mut command = installation.command(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_password_option_takes_precedence_over_the_url_and_the_url_over_the_environment() {
    let server = Server::with(Flavor::Valkey91).password("s3cret").start();
    let installation = installation!();
    let scan = |arguments: &[&str]| {
        let output = installation.command(&[&["scan"], arguments].concat()).env("REDISCLI_AUTH", "another").output();
        output.expect("it runs").status.code()
    };
    assert_eq!(scan(&[&server.url()]), Some(0), "the environment is for URLs without a password");
    let file = installation.folder().join("password");
    fs::write(&file, "s3cret").expect("a file");
    let wrong = format!("redis://:wrong@127.0.0.1:{}", server.port());
    assert_eq!(scan(&[&wrong]), Some(4));
    assert_eq!(scan(&[&wrong, "--password-file", &file.display().to_string()]), Some(0));
}

#[rstest]
#[case("0.09")]
#[case("0")]
#[case("-5")]
#[case("101")]
#[case("NaN")]
fn a_cpu_limit_out_of_range_is_rejected(#[case] percent: &str) {
    let output = installation!().run(&["scan", "redis://127.0.0.1", &format!("--max-cpu={percent}")]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("from 0.1 to 100"), "{}", stderr(&output));
}

#[test]
fn a_needless_password_and_a_wrong_one_have_different_messages() {
    let server = Server::start(Flavor::Redis70);
    let installation = installation!();
    let url = format!("redis://:needless@127.0.0.1:{}", server.port());
    let output = installation.run(&["scan", &url]);
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stderr(&output).contains("has no password set, but one was given"), "{}", stderr(&output));

    installation.admin(&["project", "add", "shop"]);
    let added = installation.run(&["admin", "instance", "add", "cache", &url, "--project", "shop"]);
    assert_eq!(added.status.code(), Some(0), "it may be set later: {}", stderr(&added));
    assert!(stderr(&added).contains("has no password set, but one was given"), "{}", stderr(&added));
}

#[test]
fn ctrl_c_stops_gracefully_and_reports_the_reclaimed_keys() {
    let server = Server::start(Flavor::Redis70);
    let loaded = DataSet::new().live(10_000).stale(10_000).load(&server);
    let installation = installation!();
    let mut command = installation.command(&["scan", &server.url(), "--json", "--keys-per-second", "5000"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    eventually("a key is reclaimed", Duration::from_secs(20), || {
        (size(&server) < loaded.live + loaded.stale).then_some(())
    });
    kill_process(Pid::from_child(&child), Signal::INT).expect("a child can be sent signals");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("one JSON object");
    assert_eq!((&report["reason"], &report["exact"]), (&"interrupted".into(), &true.into()));
    let reclaimed = report["keys_reclaimed"].as_u64().expect("a number");
    assert_eq!(size(&server) + reclaimed, loaded.live + loaded.stale, "the report counts the keys that are gone");
    assert!(stderr(&output).contains("interrupted"), "{}", stderr(&output));
}

#[test]
fn a_timeout_has_its_own_exit_code() {
    let server = Server::start(Flavor::Redis70);
    DataSet::new().live(5_000).load(&server);
    let output = installation!().run(&["scan", &server.url(), "--timeout", "300ms", "--keys-per-second", "2000"]);
    assert_eq!(output.status.code(), Some(6), "{}", stderr(&output));
    assert!(stderr(&output).contains("raise the timeout"), "{}", stderr(&output));
}

#[rstest]
#[case(&["serve", "--listen", "0.0.0.0:0"], "--insecure-http")]
#[case(&["serve", "--listen", "0.0.0.0:0", "--insecure-http", "--no-auth"], "loopback")]
#[case(&["serve", "--database", "mysql://u:hidden@h/d"], "sqlite:PATH")]
#[case(&["serve", "--database", "postgres://u:hidden@h/d"], "--key-file")]
#[case(&["worker", "--config", "/no/such/file"], "/no/such/file")]
#[case(&["admin", "project", "add", "p", "--id", "short"], "32 hex")]
#[case(&["admin", "instance", "list", "--project", "nowhere"], "nowhere")]
#[case(&["serve", "--allowed-targets", "cache.example"], "10.0.0.0/8:6379")]
fn invalid_arguments_are_rejected_before_any_change(#[case] arguments: &[&str], #[case] words: &str) {
    let output = installation!().run(arguments);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains(words) && !stderr(&output).contains("hidden"), "{}", stderr(&output));
}

#[test]
fn errors_are_colored_only_where_that_was_asked_for_and_no_color_counts() {
    let installation = installation!();
    let run = |arguments: &[&str], no_color: bool| {
        let mut command = installation.command(&[&["admin", "user", "remove", "nobody"], arguments].concat());
        if no_color {
            command.env("NO_COLOR", "1");
        }
        stderr(&command.output().expect("it runs")).contains('\u{1b}')
    };
    // The output of a test is no terminal.
    assert!(!run(&[], false) && !run(&["--color", "never"], false));
    assert!(run(&["--color", "always"], false));
    assert!(!run(&[], true));
}

#[test]
fn a_registered_password_is_neither_shown_nor_stored_in_plain_text() {
    let server = Server::with(Flavor::Redis70).password("visible-nowhere").start();
    let installation = installation!();
    let (project, _) = installation.register(&server.url());
    let list = installation.admin(&["instance", "list", "--project", &project]);
    assert_eq!(list[0]["stats"]["engine_version"], "7.0.15", "it was polled: {list:#}");
    assert!(!list.to_string().contains("visible-nowhere"));
    // Every user of the machine can read a command line; these two options keep the password out of it.
    let file = installation.folder().join("password");
    fs::write(&file, "visible-nowhere\n").expect("a file");
    let (url, file_name) = (format!("redis://127.0.0.1:{}", server.port()), file.display().to_string());
    let add = |name| vec!["admin", "instance", "add", name, &url, "--project", &project];
    let by_file = installation.run(&[add("by file"), vec!["--password-file", &file_name]].concat());
    let polled = |name: &str| (Some(0), format!("{name} added: Redis 7.0.15, 0 keys\n"));
    assert_eq!((by_file.status.code(), stderr(&by_file)), polled("by file"));
    let named = format!("redis://default@127.0.0.1:{}", server.port());
    let by_user = ["admin", "instance", "add", "by user", &named, "--project", &project, "--password-file", &file_name];
    let by_user = installation.run(&by_user);
    assert_eq!((by_user.status.code(), stderr(&by_user)), polled("by user"));
    let quiet = installation.run(&[add("quiet"), vec!["--password-file", &file_name, "-q"]].concat());
    assert_eq!((quiet.status.code(), stderr(&quiet)), (Some(0), String::new()));
    fs::remove_file(file).expect("it is there");
    let by_stdin =
        run_with_input(&installation, &[add("by input"), vec!["--password-stdin"]].concat(), "visible-nowhere\n");
    assert_eq!((by_stdin.status.code(), stderr(&by_stdin)), polled("by input"));
    let without = installation.run(&add("without"));
    assert!(stderr(&without).contains("requires a password"), "{}", stderr(&without));
    for entry in fs::read_dir(installation.folder()).expect("the folder") {
        let bytes = fs::read(entry.expect("an entry").path()).expect("a file");
        assert!(!bytes.windows(15).any(|window| window == b"visible-nowhere"));
    }
}

#[test]
fn a_shell_completes_commands_and_options_and_every_command_has_a_manual_page() {
    let installation = installation!();
    for shell in ["bash", "zsh", "fish"] {
        let output = installation.run(&["completions", shell]);
        let script = String::from_utf8_lossy(&output.stdout).into_owned();
        for word in ["max-slice", "access-key", "demo", "autoscan", "ca-file"] {
            assert!(script.contains(word), "{word:?} is not completed in {shell}");
        }
    }
    let script = installation.folder().join("completions");
    fs::write(&script, installation.run(&["completions", "bash"]).stdout).expect("a file");
    let ask = format!(
        "source {} && COMP_WORDS=(keysweep scan --max-s) && COMP_CWORD=2 && _keysweep keysweep --max-s scan && echo ${{COMPREPLY[@]}}",
        script.display()
    );
    let completed = Command::new("bash").args(["-c", &ask]).output().expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&completed.stdout).trim(), "--max-slice", "{}", stderr(&completed));

    let page = String::from_utf8(installation.run(&["man"]).stdout).expect("text");
    assert!(page.contains(".TH keysweep 1") && page.contains("keysweep\\-scan(1)"), "{page}");
    let folder = installation.folder().join("man");
    let output = installation.run(&["man", "--dir", &folder.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for name in ["keysweep.1", "keysweep-scan.1", "keysweep-admin-instance-add.1", "keysweep-task-watch.1"] {
        let page = fs::read_to_string(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
}

/// Returns the sorted names of the files in an installation's folder.
fn files(installation: &Installation) -> Vec<String> {
    let entries = fs::read_dir(installation.folder()).expect("the folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name")).collect();
    names.sort();
    names
}

#[test]
fn a_command_or_a_stopped_service_leaves_one_database_file_and_its_key() {
    let installation = installation!();
    installation.admin(&["project", "add", "shop"]);
    assert_eq!(files(&installation), ["keysweep.db", "keysweep.db.key"], "after a command");
    let failed = installation.run(&["admin", "project", "add", "shop"]);
    assert!(stderr(&failed).contains("another project has the name \"shop\" already"), "{}", stderr(&failed));
    assert_eq!(files(&installation), ["keysweep.db", "keysweep.db.key"], "after a command that failed");

    let (project, instance) = installation.register(&format!("redis://127.0.0.1:{}", free_port()));
    let service = installation.serve(&["--no-auth"]);
    let task = service.scan(&project, &instance);
    let (code, log) = service.terminate();
    assert_eq!(code, Some(0), "{log:#?}");
    assert_eq!(files(&installation), ["keysweep.db", "keysweep.db.key"], "after SIGTERM: {log:#?}");

    let copy = installation!();
    for name in files(&installation) {
        fs::copy(installation.folder().join(&name), copy.folder().join(&name)).expect("a copy");
    }
    let service = copy.serve(&["--no-auth"]);
    assert_eq!(service.task(&task)["instance_id"], instance.as_str());
}

/// Runs a command of `admin` on a terminal of its own and answers its prompts; returns exit code and screen.
fn on_a_terminal(installation: &Installation, arguments: &str, answers: &[&str]) -> (Option<i32>, String) {
    let command =
        format!("{} admin --database {} {arguments}", env!("CARGO_BIN_EXE_keysweep"), installation.database_url());
    // `script` allocates a terminal and exits with the code of its command.
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &command, "/dev/null"]).env("TERM", "xterm");
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script (bsdutils) starts");
    let (mut typed, mut screen) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
    let mut shown = Vec::new();
    for answer in answers {
        while !shown.ends_with(b": ") {
            let mut byte = [0];
            screen.read_exact(&mut byte).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&shown)));
            shown.extend(byte);
        }
        shown.push(b'\n');
        writeln!(typed, "{answer}").expect("it reads");
    }
    screen.read_to_end(&mut shown).expect("it ends");
    (child.wait().expect("it ends").code(), String::from_utf8_lossy(&shown).into_owned())
}

#[test]
fn a_password_prompt_asks_twice_and_a_mismatch_changes_nothing() {
    let installation = installation!();
    installation.admin(&["project", "add", "shop"]);
    let add = "user add ada --project shop --role reader --password-prompt";
    let (code, shown) = on_a_terminal(&installation, add, &["correct horse battery", "correct horse"]);
    assert!(code == Some(2) && shown.contains("the passwords differ; nothing was changed"), "{shown}");
    assert_eq!(installation.admin(&["user", "list"]), serde_json::json!([]));
    let (code, shown) = on_a_terminal(&installation, add, &["correct horse battery", "correct horse battery"]);
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(installation.admin(&["user", "list"])[0]["has_password"], true);

    installation.admin(&["user", "passwd", "ada", "--none"]);
    for passwd in ["user passwd ada", "user passwd ada --password-prompt"] {
        let (code, shown) = on_a_terminal(&installation, passwd, &["another one", "another one"]);
        assert_eq!(code, Some(0), "{shown}");
    }
    assert_eq!(installation.admin(&["user", "list"])[0]["has_password"], true);
}
