//! Signatures behind a proxy that replaces the Host header, which most SDKs sign.

use super::*;

const PUBLIC: &str = "keys.example";

/// Sends a GET that was signed for the public host, as a proxy passes it on: with the service's own host.
fn through_proxy(service: &Service, key: &Signer, path: &str, more: &[(&str, &str)]) -> Answer {
    let mut headers = key.headers_with_host(PUBLIC, "GET", path, b"");
    headers.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    send(service, "GET", path, &headers, "")
}

fn robot(installation: &Installation) -> (Signer, String) {
    let [(project, instance), _] = two_projects(installation);
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "operator"]);
    (add_key(installation, "robot"), format!("/v2/{project}/instances/{instance}"))
}

#[test]
fn the_log_names_both_hosts_and_a_changed_host_locks_no_key() {
    let installation = installation!();
    let (key, path) = robot(&installation);
    let service = installation.serve(&[]);
    let own = service.base.trim_start_matches("http://").to_owned();
    for _ in 0..7 {
        let refused = through_proxy(&service, &key, &path, &[("X-Forwarded-Host", PUBLIC)]);
        assert_eq!(code(&refused), (401, "APIGW.0301"));
    }
    let logged = service.wait_for_log("signature covers host");
    assert!(logged.contains(&format!("signature covers host {PUBLIC}, request arrived with host {own}")), "{logged}");
    assert_eq!(signed(&service, &key, "GET", &path, "").status, 200, "the secret was right each time");

    // A proxy that passes on neither header leaves nothing to compare, but the log says what to look at.
    assert_eq!(code(&through_proxy(&service, &key, &path, &[])), (401, "APIGW.0301"));
    let logged = service.wait_for_log("it covers the Host header");
    assert!(logged.contains(&format!("arrived with host {own}")), "{logged}");
    // A wrong secret is a guess, whatever the proxy says.
    let other = add_key(&installation, "robot");
    let wrong = Signer { secret: "another secret".into(), ..other.clone() };
    for _ in 0..6 {
        through_proxy(&service, &wrong, &path, &[("X-Forwarded-Host", PUBLIC)]);
    }
    let locked = signed(&service, &other, "GET", &path, "");
    assert!(locked.body["error_msg"].as_str().is_some_and(|text| text.contains("locked")), "{}", locked.body);
}

#[test]
fn a_signature_for_the_host_of_the_public_url_is_good_behind_any_proxy() {
    let installation = installation!();
    let (key, path) = robot(&installation);
    let service = installation.serve(&["--public-url", "https://keys.example"]);
    assert_eq!(through_proxy(&service, &key, &path, &[]).status, 200);
    let other = key.headers_with_host("other.example", "GET", &path, b"");
    assert_eq!(code(&send(&service, "GET", &path, &other, "")), (401, "APIGW.0301"));
}

#[test]
fn behind_a_trusted_proxy_clients_are_told_apart_and_the_host_that_they_called_counts() {
    let installation = installation!();
    let (key, path) = robot(&installation);
    add_user(&installation, "ada", "shop", "operator");
    let service = installation.serve(&["--trusted-proxies", "127.0.0.0/8"]);
    assert_eq!(through_proxy(&service, &key, &path, &[("X-Forwarded-Host", PUBLIC)]).status, 200);
    let versions = service.send("GET", "/v3", &[("X-Forwarded-Host", PUBLIC), ("X-Forwarded-Proto", "https")], "");
    assert_eq!(versions.body["version"]["links"][0]["href"], format!("https://{PUBLIC}/v3/"));

    // Twelve wrong passwords and six bad signatures of one client, and what another one finds.
    let from = |client: &str, password: &str| {
        let user = json!({ "name": "ada", "password": password });
        let body = json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": user } } } });
        service.send("POST", "/v3/auth/tokens", &[("X-Forwarded-For", client)], body.to_string()).status
    };
    let guesses: Vec<u16> = (0..12).map(|_| from("203.0.113.9, 198.51.100.7", "a wrong password")).collect();
    assert_eq!((guesses[0], guesses[11]), (401, 429));
    let wrong = Signer { secret: "another secret".into(), ..key.clone() };
    let signed_from = |client: &str, key: &Signer| {
        let mut headers = key.headers("GET", &path, b"");
        headers.push(("X-Forwarded-For".into(), client.to_owned()));
        send(&service, "GET", &path, &headers, "")
    };
    for _ in 0..6 {
        assert_eq!(signed_from("198.51.100.7", &wrong).status, 401);
    }
    let locked = signed_from("198.51.100.7", &key);
    assert!(locked.body["error_msg"].as_str().is_some_and(|text| text.contains("locked")), "{}", locked.body);
    assert_eq!((from("198.51.100.8", PASSWORD), signed_from("198.51.100.8", &key).status), (201, 200));
    assert_eq!(from("203.0.113.9", PASSWORD), 201, "what a client writes into the header itself does not count");
}

#[test]
fn a_key_that_was_verified_at_an_address_is_not_locked_there_by_other_clients() {
    let installation = installation!();
    let (key, path) = robot(&installation);
    let service = installation.serve(&[]);
    assert_eq!(signed(&service, &key, "GET", &path, "").status, 200);
    let wrong = Signer { secret: "another secret".into(), ..key.clone() };
    for _ in 0..7 {
        assert_eq!(code(&signed(&service, &wrong, "GET", &path, "")), (401, "APIGW.0301"));
    }
    assert_eq!(signed(&service, &key, "GET", &path, "").status, 200);
}
