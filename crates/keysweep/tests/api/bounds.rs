//! Bounds on what a project stores, and on the memory of lists that clients ask for and do not read.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
};

use keysweep_harness::id;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::own_api::{error, installation, post};

const KIB: usize = 1024;

/// Returns the URL of a cluster with as many nodes as it takes to have at least so many bytes.
fn cluster(bytes: usize) -> String {
    let mut url = String::from("redis-cluster://127.0.0.1:1");
    let nodes = (2..).map(|port| format!(",127.0.0.1:{port}"));
    for node in nodes {
        if url.len() >= bytes {
            break;
        }
        url.push_str(&node);
    }
    url
}

/// Returns an address map of at most so many bytes.
fn address_map(bytes: usize) -> String {
    let pairs = (1..).map(|port| format!("10.0.0.1:{port}=127.0.0.1:{port}"));
    let mut map = String::new();
    for pair in pairs {
        if map.len() + pair.len() + 1 > bytes {
            break;
        }
        if !map.is_empty() {
            map.push(',');
        }
        map.push_str(&pair);
    }
    map
}

#[test]
fn settings_that_are_too_long_are_refused_with_field_length_and_remedy() {
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let instances = format!("{base}/instances");
    let plain = |url: String| json!({ "name": "x", "url": url });
    let with = |connection: Value| json!({ "name": "x", "url": "rediss://127.0.0.1:1", "connection": connection });
    let x = |length: usize| "x".repeat(length);
    for (body, words) in [
        (plain(cluster(8 * KIB + 1)), "bytes and may have 8192; shorten it"),
        (plain(x(500 * KIB)), "the URL with user and password has 512000 bytes and may have 21248; shorten it"),
        (plain(format!("redis://{}:p@127.0.0.1:1", x(257))), "the user has 257 bytes and may have 256; shorten it"),
        (plain(format!("redis://u:{}@127.0.0.1:1", x(4 * KIB + 1))), "the password has 4097 bytes and may have 4096"),
        (with(json!({ "server_name": x(257) })), "the server name has 257 bytes and may have 256; shorten it"),
        (with(json!({ "address_map": x(32 * KIB + 1) })), "the address map has 32769 bytes and may have 32768"),
        (with(json!({ "sentinel_username": x(257) })), "the Sentinel user has 257 bytes and may have 256"),
        (with(json!({ "sentinel_password": x(4 * KIB + 1) })), "the Sentinel password has 4097 bytes"),
        (with(json!({ "ca": x(64 * KIB + 1) })), "the CA bundle has 65537 bytes and may have 65536; give only the"),
        (with(json!({ "certificate": x(64 * KIB + 1) })), "the client certificate has 65537 bytes"),
        (with(json!({ "key": x(64 * KIB + 1) })), "the client key has 65537 bytes"),
    ] {
        let answer = post(&service, &instances, &body);
        let message = answer.body["error"]["message"].as_str().unwrap_or_default();
        assert!(answer.status == 400 && message.contains(words), "{words}: {} {message}", answer.status);
        assert!(!message.contains("xxx"), "the text is not repeated: {message}");
    }
    assert_eq!(service.get(&instances), json!({ "instances": [] }));
}

/// Copies the only instance of a database so often, with other names and ids, as if each copy was polled already.
async fn copy_instance(database: &mut SqliteConnection, copies: u32) {
    let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info('instance')")
        .fetch_all(&mut *database)
        .await
        .expect("a table");
    let value = |column: &String| match column.as_str() {
        "id" => "printf('%032x', i)".to_owned(),
        "name" => "printf('copy%04d', i)".to_owned(),
        // In the year 2255: no worker polls them meanwhile.
        "looked_at" | "estimate_at" => "9000000000000000".to_owned(),
        _ => column.clone(),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let copy = format!(
        "WITH RECURSIVE copy (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM copy WHERE i < {copies})
         INSERT INTO instance ({}) SELECT {} FROM copy CROSS JOIN instance",
        columns.join(", "),
        values.join(", ")
    );
    database.execute(AssertSqlSafe(copy)).await.expect("copied");
}

/// Returns the answer to a GET, however long it is.
fn whole(address: &str, path: &str) -> Value {
    let mut stream = TcpStream::connect(address).expect("a connection");
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    serde_json::from_str(body).expect("JSON")
}

#[test]
fn a_service_with_unread_lists_of_the_longest_instances_stays_below_256_mib() {
    const COPIES: u32 = 199;
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let instances = format!("{base}/instances");
    let url = cluster(8 * KIB - 20);
    let longest = json!({ "name": "longest", "url": url, "connection": { "address_map": address_map(32 * KIB) } });
    let added = post(&service, &instances, &longest);
    assert_eq!(added.status, 201, "{:?}", added.body);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(installation.database());
        copy_instance(&mut options.connect().await.expect("a connection"), COPIES).await;
    });

    // A list has 8 MiB, and takes five times as much while it is made.
    let address = service.base.trim_start_matches("http://");
    let unread: Vec<TcpStream> = (0..8)
        .map(|_| {
            let mut stream = TcpStream::connect(address).expect("a connection");
            write!(stream, "GET {instances} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is sent");
            stream
        })
        .collect();
    // The console needs a whole list for a page, and there is memory for one such list of a project.
    let page = format!("/console/{}/instances", base.rsplit('/').next().expect("a project"));
    assert_eq!(service.request("GET", &page).status, 200, "the unread lists leave memory for it");
    let statuses: Vec<u16> = thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| service.request("GET", &page).status)).collect();
        asked.into_iter().map(|asked| asked.join().expect("no panic")).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    assert_eq!(service.request("GET", &page).status, 200, "the memory is given back");
    let listed = whole(address, &instances);
    let listed = listed["instances"].as_array().expect("a list");
    let names: Vec<&str> = listed.iter().filter_map(|instance| instance["name"].as_str()).collect();
    assert_eq!((names.len(), names.last()), (COPIES as usize + 1, Some(&"longest")), "every part is there, once");
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(error(&service.request("GET", &format!("{instances}/{}x", id(&added.body)))), (400, "invalid"));
    let peak = service.peak_memory();
    assert!(peak < 256 << 20, "{} MiB", peak >> 20);
    drop(unread);
}
