//! A scan that reclaimed nothing, although keys are stale, is a failure on the command line and in the service.

use keysweep_harness::{DataSet, Flavor, Server, installation};
use rstest::rstest;

const STALE: u64 = 1_500;

/// Starts a server that deletes no expired key, and returns the URL of a user who cannot read that setting.
fn server_that_keeps_expired_keys() -> (Server, String) {
    let server = Server::with(Flavor::Valkey91).arg("--import-mode", "yes").start();
    let loaded = DataSet::new().live(3_000).stale(STALE).load(&server);
    assert_eq!(loaded.stale, STALE);
    let rules = ["on", ">p", "~*", "&*", "+@all", "-config"];
    redis::cmd("ACL").arg("SETUSER").arg("scanner").arg(&rules).exec(&mut server.connection()).expect("a user");
    let url = format!("redis://scanner:p@127.0.0.1:{}", server.port());
    (server, url)
}

#[rstest]
#[case::keys_that_are_neither_returned_nor_deleted(false, 7, "1500 keys in database 0")]
#[case::a_server_in_import_mode(true, 1, "import-mode yes")]
fn heavy_the_command_has_a_code_and_a_sentence_for(
    #[case] may_read_settings: bool,
    #[case] code: i32,
    #[case] words: &str,
) {
    let (server, url) = server_that_keeps_expired_keys();
    let url = if may_read_settings { server.url() } else { url };
    let output = installation!().run(&["scan", &url]);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert!(error.contains(words), "{words:?} is not in {error}");
    assert_eq!(server.held(), 3_000 + STALE);
}

#[test]
fn heavy_a_task_that_left_keys_out_has_failed_for_dcs_and_says_why() {
    let (_server, url) = server_that_keeps_expired_keys();
    let installation = installation!();
    let (project, instance) = installation.register(&url);
    let service = installation.serve(&["--no-auth"]);
    let task = service.scan(&project, &instance);
    let ended = service.wait_until_finished(&task);
    let histories = service.histories(&project, &instance);

    assert_eq!((&ended["status"], &ended["reason"]["code"]), (&"failed".into(), &"incomplete".into()), "{ended:#}");
    let message = ended["reason"]["message"].as_str().expect("a sentence");
    assert!(message.contains("1500 keys in database 0"), "{message}");
    let record = histories["records"].as_array().and_then(|records| records.first()).expect("a record");
    assert_eq!(record["status"], "failed", "{histories:#}");
}
