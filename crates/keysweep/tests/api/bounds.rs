//! Bounds on what a project stores, and on the memory of lists that clients ask for and do not read.

use std::{
    io::Write,
    net::{SocketAddr, TcpStream},
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

/// Copies the only instance of a database so often, with other names and ids and the longest certificates, as if each copy was polled
/// already.
async fn copy_instance(database: &mut SqliteConnection, copies: u32) {
    let columns: Vec<String> = sqlx::query_scalar("SELECT name FROM pragma_table_info('instance')")
        .fetch_all(&mut *database)
        .await
        .expect("a table");
    let value = |column: &String| match column.as_str() {
        "id" => "printf('%032x', i)".to_owned(),
        "name" => "printf('copy%04d', i)".to_owned(),
        "ca_pem" | "cert_pem" => "printf('%.*c', 65536, 'x')".to_owned(),
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

/// Opens connections with the least receive buffers, asks for something on each, and reads nothing.
async fn unread(address: SocketAddr, path: &str, number: usize) -> Vec<TcpStream> {
    let mut opened = Vec::new();
    for _ in 0..number {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(1).expect("the system takes its least");
        let mut stream = socket.connect(address).await.expect("it listens").into_std().expect("a stream");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("it is sent");
        opened.push(stream);
    }
    opened
}

#[test]
fn a_service_with_unread_lists_of_the_longest_instances_stays_below_256_mib() {
    const COPIES: u32 = 299;
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let instances = format!("{base}/instances");
    let added = post(&service, &instances, &json!({ "name": "longest", "url": cluster(8 * KIB - 20) }));
    assert_eq!(added.status, 201, "{:?}", added.body);
    let address = service.base.trim_start_matches("http://").parse().expect("an address");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let held = runtime.block_on(async {
        let options = SqliteConnectOptions::new().filename(installation.database());
        copy_instance(&mut options.connect().await.expect("a connection"), COPIES).await;
        unread(address, &instances, 8).await
    });

    // A list takes some 50 MiB while it is made. The console makes a whole one for a page, and there is memory for one such list of a
    // project at a time.
    let page = format!("/console/{}/instances", base.rsplit('/').next().expect("a project"));
    let statuses: Vec<u16> = thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| service.request("GET", &page).status)).collect();
        asked.into_iter().map(|asked| asked.join().expect("no panic")).collect()
    });
    assert!(statuses.iter().all(|status| matches!(status, 200 | 503)), "{statuses:?}");
    assert_eq!(service.request("GET", &page).status, 200, "the memory is given back");
    let listed = service.get(&instances);
    let listed = listed["instances"].as_array().expect("a list");
    let names: Vec<&str> = listed.iter().filter_map(|instance| instance["name"].as_str()).collect();
    assert_eq!((names.len(), names.last()), (COPIES as usize + 1, Some(&"longest")), "every part is there, once");
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(error(&service.request("GET", &format!("{instances}/{}x", id(&added.body)))), (400, "invalid"));
    let peak = service.peak_memory();
    assert!(peak < 256 << 20, "{} MiB", peak >> 20);
    drop(held);
}
