//! Signing in and out, and the lifetime of sessions.

use keysweep_harness::{Installation, Postgres, id};
use rstest::rstest;

use crate::visitor::{PASSWORD, Shop, Visitor};

#[test]
fn a_visitor_without_a_session_is_redirected_to_the_sign_in_and_back() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::new(&service);
    let answer = visitor.get(&shop.page());
    let sign_in = answer.header("location").expect("a redirect").to_owned();
    assert_eq!(answer.status, 303);
    assert!(sign_in.starts_with("/console/sign-in?next=%2Fconsole%2F"), "{sign_in}");
    let page = visitor.get(&sign_in);
    assert_eq!(page.status, 200);
    let next = shop.page();
    let fields = [("name", "reader"), ("password", PASSWORD), ("next", next.as_str())];
    let answer = visitor.post("/console/sign-in", &page, &fields);
    assert_eq!((answer.status, answer.header("location")), (303, Some(shop.page().as_str())));
    assert!(visitor.get(&shop.page()).text.contains("<h1>cache"));

    let home = visitor.get("/console");
    assert_eq!(home.header("location"), Some(format!("/console/{}/instances", shop.project).as_str()));
    assert_eq!(visitor.get("/console/sign-in").status, 303, "a user with a session need not sign in again");
}

#[test]
fn the_root_redirects_browsers_to_the_console_and_tells_api_clients_the_versions() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let browsers = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    let answer = service.send("GET", "/", &[("accept", browsers)], "");
    assert_eq!((answer.status, answer.header("location")), (303, Some("/console")));
    assert!(answer.header("content-security-policy").is_some(), "{answer:?}");
    for accept in ["*/*", "application/json"] {
        let answer = service.send("GET", "/", &[("accept", accept)], "");
        assert_eq!((answer.status, &answer.body["versions"]["values"][0]["status"]), (200, &"stable".into()));
    }
    assert_eq!(service.send("GET", "/v2", &[("accept", browsers)], "").status, 404);
}

#[test]
fn a_stale_sign_in_form_in_a_second_tab_continues_with_the_session_of_the_first() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::new(&service);
    let second_tab = visitor.get("/console/sign-in");
    visitor.sign_in("reader", PASSWORD);
    let (next, path) = (shop.page(), "/console/sign-in");
    let fields = [("name", "reader"), ("password", PASSWORD), ("next", next.as_str())];
    let answer = visitor.post(path, &second_tab, &fields);
    assert_eq!((answer.status, answer.header("location")), (303, Some(next.as_str())));
    let stranger = Visitor::new(&service).post(path, &second_tab, &fields);
    assert_eq!(stranger.status, 403, "without a session a form of another browser is still refused");
}

#[rstest]
#[case("https://evil.example/")]
#[case("//evil.example/")]
#[case("/console/../v2")]
#[case("/console\\evil")]
#[case("/console/x?y=z")]
fn a_sign_in_never_redirects_outside_the_console(#[case] next: &str) {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::new(&service);
    let page = visitor.get("/console/sign-in");
    let answer = visitor.post("/console/sign-in", &page, &[("name", "reader"), ("password", PASSWORD), ("next", next)]);
    assert_eq!(answer.header("location"), Some("/console"));
}

#[test]
fn a_session_cookie_is_valid_for_the_console_only_and_ends_with_the_session() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::new(&service);
    let answer = visitor.sign_in("operator", PASSWORD);
    let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
    for part in ["keysweep_session=", "Path=/console", "HttpOnly", "SameSite=Lax"] {
        assert!(cookie.contains(part), "{part} in {cookie}");
    }
    assert!(!cookie.contains("Secure"), "a browser would not send it back over plain HTTP");
    let session = visitor.cookies.iter().find(|(name, _)| name == "keysweep_session").expect("kept").1.clone();

    let page = visitor.get(&shop.page());
    assert_eq!(page.status, 200);
    let api = format!("/api/v1/projects/{}/instances", shop.project);
    let cookie = format!("keysweep_session={session}");
    assert_eq!(service.send("GET", &api, &[("Host", "localhost"), ("Cookie", &cookie)], "").status, 401);
    assert_eq!(service.send("GET", &api, &[("X-Auth-Token", &session)], "").status, 401, "a session is no token");

    let answer = visitor.post("/console/sign-out", &page, &[]);
    assert_eq!(answer.header("location"), Some("/console/sign-in"));
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")));
    let path = shop.page();
    assert_eq!(
        service.send("GET", &path, &[("Host", "localhost"), ("Cookie", &cookie)], "").status,
        303,
        "the session has ended"
    );
}

/// Browsers keep one set of cookies for all ports of a host.
#[test]
fn two_services_on_one_host_do_not_end_each_others_sessions() {
    let shops = [Shop::with_no_server(), Shop::with_no_server()];
    let services = [shops[0].installation.serve(&[]), shops[1].installation.serve(&[])];
    let mut cookies = Vec::new();
    let visit = |index: usize, cookies: Vec<(String, String)>| {
        let host = services[index].base.trim_start_matches("http://").to_owned();
        Visitor { host, ..Visitor::with(&services[index], cookies) }
    };
    for index in [0, 1] {
        let mut visitor = visit(index, cookies);
        assert_eq!(visitor.sign_in("operator", PASSWORD).status, 303);
        cookies = visitor.cookies;
    }
    for (index, shop) in shops.iter().enumerate() {
        assert_eq!(visit(index, cookies.clone()).get(&shop.page()).status, 200, "both sessions are valid");
    }
}

#[test]
fn behind_a_proxy_that_speaks_tls_cookies_are_for_tls_only() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::new(&service);
    let page = visitor.send("GET", "/console/sign-in", &[("X-Forwarded-Proto", "https")], "");
    assert!(page.header("set-cookie").is_some_and(|cookie| cookie.ends_with("; Secure")), "{:?}", page.headers);
}

#[test]
fn an_api_token_is_not_a_session() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let body = serde_json::json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": {
        "name": "admin", "password": PASSWORD, "domain": { "name": "d" } } } } } });
    let answer = service.send("POST", "/v3/auth/tokens", &[], body.to_string());
    let token = answer.header("x-subject-token").expect("a token");
    let cookie = format!("keysweep_session={token}");
    assert_eq!(service.send("GET", &shop.page(), &[("Host", "localhost"), ("Cookie", &cookie)], "").status, 303);
}

#[test]
fn a_session_survives_a_restart_of_the_service() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let cookies = Visitor::signed_in(&service, "operator").cookies;
    service.terminate();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::with(&service, cookies);
    assert_eq!(visitor.get(&shop.page()).status, 200);
    shop.installation.admin(&["user", "disable", "operator"]);
    assert_eq!(visitor.get(&shop.page()).status, 303, "disabling a user ends the session at once");
}

#[test]
fn a_wrong_password_is_reported_and_guessing_is_locked_out() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::new(&service);
    let answers: Vec<_> = (0..12).map(|_| visitor.sign_in("reader", "wrong horse battery")).collect();
    assert_eq!(answers[0].status, 401);
    assert!(answers[0].text.contains("wrong") && answers[0].text.contains("value=\"reader\""), "{}", answers[0].text);
    assert!(!answers[0].text.contains("wrong horse"), "a password is not shown again");
    assert_eq!(answers[11].status, 429);
    assert_eq!(visitor.sign_in("reader", PASSWORD).status, 429, "even the right one has to wait");
    let wait = answers[11].header("retry-after").and_then(|wait| wait.parse().ok());
    assert!(wait.is_some_and(|wait: u64| (1..=300).contains(&wait)), "{wait:?}");
}

#[test]
fn a_session_is_valid_on_every_replica_and_ends_on_all_of_them() {
    let database = Postgres::start();
    let installation = Installation::on_postgres(env!("CARGO_BIN_EXE_keysweep"), &database);
    let project = id(&installation.admin(&["project", "add", "shop"]));
    installation.add_user("ada", "shop", "reader", PASSWORD);
    let [one, other] = [installation.serve(&[]), installation.serve(&[])];
    let cookies = Visitor::signed_in(&one, "ada").cookies;
    let mut visitor = Visitor::with(&other, cookies.clone());
    let list = format!("/console/{project}/instances");
    let page = visitor.get(&list);
    assert_eq!(page.status, 200, "{}", page.text);
    assert_eq!(
        visitor.post("/console/sign-out", &page, &[]).status,
        303,
        "forms of one replica are valid on the other"
    );
    assert_eq!(Visitor::with(&one, cookies).get(&list).status, 303);
}
