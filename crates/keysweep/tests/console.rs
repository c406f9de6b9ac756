//! The web console over plain HTTP: what a browser without script sees and sends, and what is refused.

mod common;

use std::time::Duration;

use keysweep_harness::{Answer, DataSet, Flavor, Installation, Server, Service, eventually, free_port, id};
use rstest::rstest;

const PASSWORD: &str = "correct horse battery";

/// A browser without script: keeps cookies, follows no redirect by itself.
struct Visitor<'a> {
    service: &'a Service,
    cookies: Vec<(String, String)>,
}

impl<'a> Visitor<'a> {
    fn new(service: &'a Service) -> Self {
        Self { service, cookies: Vec::new() }
    }

    fn signed_in(service: &'a Service, name: &str) -> Self {
        let mut visitor = Self::new(service);
        let answer = visitor.sign_in(name, PASSWORD);
        assert_eq!(answer.status, 303, "{}", answer.text);
        visitor
    }

    fn sign_in(&mut self, name: &str, password: &str) -> Answer {
        let page = self.get("/console/sign-in");
        self.post("/console/sign-in", &page, &[("name", name), ("password", password)])
    }

    fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let cookie = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let mut all = vec![("Cookie", cookie.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
        all.extend(headers);
        let answer = self.service.send(method, path, &all, body);
        for (_, line) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = line.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        answer
    }

    fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    /// Sends a form that stands on a page.
    fn post(&mut self, path: &str, page: &Answer, fields: &[(&str, &str)]) -> Answer {
        self.send("POST", path, &[], &form(&token(page), fields))
    }

    /// Sends a form, follows the redirect, and returns the page.
    fn submit(&mut self, path: &str, page: &Answer, fields: &[(&str, &str)]) -> Answer {
        let answer = self.post(path, page, fields);
        assert_eq!(answer.status, 303, "{path}: {}", answer.text);
        let location = answer.header("location").expect("a place to go on").to_owned();
        self.get(&location)
    }
}

fn token(page: &Answer) -> String {
    let rest =
        page.text.split("name=\"form_token\" value=\"").nth(1).unwrap_or_else(|| panic!("no form: {}", page.text));
    rest.split('"').next().expect("a value").to_owned()
}

fn form(token: &str, fields: &[(&str, &str)]) -> String {
    let mut form = url_encoded(&[("form_token", token)]);
    for field in fields {
        form = format!("{form}&{}", url_encoded(&[*field]));
    }
    form
}

fn url_encoded(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect::<String>()
    };
    fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// A project with one instance, whose server may be nowhere, and a user of each role.
struct Shop {
    installation: Installation,
    project: String,
    instance: String,
}

impl Shop {
    fn new(url: &str) -> Self {
        let installation = Installation::new(env!("CARGO_BIN_EXE_keysweep"));
        let project = id(&installation.admin(&["project", "add", "shop"]));
        let instance = id(&installation.admin(&["instance", "add", "cache", url, "--project", "shop"]));
        for role in ["reader", "operator", "admin"] {
            installation.add_user(role, "shop", role, PASSWORD);
        }
        Self { installation, project, instance }
    }

    fn with_no_server() -> Self {
        Self::new(&format!("redis://127.0.0.1:{}", free_port()))
    }

    fn page(&self) -> String {
        format!("/console/{}/instances/{}", self.project, self.instance)
    }
}

#[test]
fn whoever_has_not_signed_in_is_sent_to_sign_in_and_back() {
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
    assert_eq!(visitor.get("/console/sign-in").status, 303, "who has signed in need not do so again");
}

#[rstest]
#[case("https://evil.example/")]
#[case("//evil.example/")]
#[case("/console/../v2")]
#[case("/console\\evil")]
#[case("/console/x?y=z")]
fn signing_in_leads_to_no_other_place_than_the_console(#[case] next: &str) {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::new(&service);
    let page = visitor.get("/console/sign-in");
    let answer = visitor.post("/console/sign-in", &page, &[("name", "reader"), ("password", PASSWORD), ("next", next)]);
    assert_eq!(answer.header("location"), Some("/console"));
}

#[test]
fn a_session_cookie_is_for_the_console_alone_and_for_no_script_and_ends_with_the_session() {
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
    assert_eq!(service.send("GET", &api, &[("Cookie", &cookie)], "").status, 401);
    assert_eq!(service.send("GET", &api, &[("X-Auth-Token", &session)], "").status, 401, "a session is no token");

    let answer = visitor.post("/console/sign-out", &page, &[]);
    assert_eq!(answer.header("location"), Some("/console/sign-in"));
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.contains("Max-Age=0")));
    let path = shop.page();
    assert_eq!(service.send("GET", &path, &[("Cookie", &cookie)], "").status, 303, "it is worth nothing any more");
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
fn a_token_of_the_api_is_no_session() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let body = serde_json::json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": {
        "name": "admin", "password": PASSWORD, "domain": { "name": "d" } } } } } });
    let answer = service.send("POST", "/v3/auth/tokens", &[], body.to_string());
    let token = answer.header("x-subject-token").expect("a token");
    let cookie = format!("keysweep_session={token}");
    assert_eq!(service.send("GET", &shop.page(), &[("Cookie", &cookie)], "").status, 303);
}

#[test]
fn a_session_survives_a_restart_of_the_service() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let cookies = Visitor::signed_in(&service, "operator").cookies;
    service.terminate();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor { service: &service, cookies };
    assert_eq!(visitor.get(&shop.page()).status, 200);
    shop.installation.admin(&["user", "disable", "operator"]);
    assert_eq!(visitor.get(&shop.page()).status, 303, "a disabled user is out at once");
}

#[test]
fn a_wrong_password_is_told_and_guessing_is_throttled() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::new(&service);
    let answers: Vec<_> = (0..12).map(|_| visitor.sign_in("reader", "wrong horse battery")).collect();
    assert_eq!(answers[0].status, 401);
    assert!(answers[0].text.contains("wrong") && answers[0].text.contains("value=\"reader\""), "{}", answers[0].text);
    assert!(!answers[0].text.contains("wrong horse"), "a password is not shown again");
    assert_eq!(answers[11].status, 429);
    assert_eq!(visitor.sign_in("reader", PASSWORD).status, 429, "even the right one has to wait");
}

#[test]
fn a_form_from_elsewhere_is_refused_and_changes_nothing() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "admin");
    let page = visitor.get(&shop.page());
    let (scan, good) = (format!("{}/scan", shop.page()), form(&token(&page), &[]));
    let other = Visitor::signed_in(&service, "operator").get(&shop.page());
    let refused: [(&[(&str, &str)], String); 6] = [
        (&[], String::new()),
        (&[], form("00", &[])),
        (&[], form(&token(&other), &[])),
        (&[("Origin", "https://evil.example")], good.clone()),
        (&[("Origin", "null")], good.clone()),
        (&[("Sec-Fetch-Site", "cross-site")], good.clone()),
    ];
    for (headers, body) in refused {
        let answer = visitor.send("POST", &scan, headers, &body);
        assert_eq!(answer.status, 403, "{headers:?} {body}");
        assert!(answer.text.contains("Nothing was changed"), "{}", answer.text);
    }
    let history = visitor.get(&shop.page());
    assert!(history.text.contains("No scan yet."));
    let origin = service.base.clone();
    assert_eq!(visitor.send("POST", &scan, &[("Origin", &origin)], &good).status, 303, "our own page's is taken");
}

#[test]
fn every_answer_shields_itself() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "admin");
    let project = format!("/console/{}", shop.project);
    let paths = [
        "/console".into(),
        "/console/sign-in".into(),
        "/console/assets/console.css".into(),
        "/console/assets/none".into(),
        "/console/none/at/all/here".into(),
        format!("{project}/instances"),
        format!("{project}/audit"),
        format!("{project}/add"),
        shop.page(),
        format!("{}/edit", shop.page()),
    ];
    for path in paths {
        let answer = visitor.get(&path);
        let header = |name: &str| answer.header(name).unwrap_or_default().to_owned();
        let policy = header("content-security-policy");
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "frame-ancestors 'none'",
            "form-action 'self'",
        ] {
            assert!(policy.contains(part), "{path}: {part} in {policy:?}");
        }
        assert!(!policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!(header("x-content-type-options"), "nosniff", "{path}");
        if !path.ends_with(".css") && answer.status != 404 {
            assert_eq!(header("cache-control"), "no-store", "{path}");
        }
        for inline in ["<style", " style=", "<script>", " onclick=", " onload=", "javascript:"] {
            assert!(!answer.text.contains(inline), "{path} has {inline}");
        }
        let elsewhere = ["src=\"http", "href=\"http", "url(http"].iter().any(|word| answer.text.contains(word));
        assert!(!elsewhere, "{path} loads from elsewhere");
    }
}

#[test]
fn a_reader_sees_no_button_and_is_refused_whatever_is_sent() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut reader = Visitor::signed_in(&service, "reader");
    let page = reader.get(&shop.page());
    // The only form is the one that signs out.
    assert_eq!(page.text.matches("<form").count(), 1, "{}", page.text);
    for action in ["scan", "test", "pause", "resume", "remove", "auto-scan", "edit"] {
        let answer = reader.post(&format!("{}/{action}", shop.page()), &page, &[("sure", "on")]);
        assert_eq!(answer.status, 403, "{action}");
        assert!(answer.text.contains("Not with your role"), "{action}: {}", answer.text);
    }
    for path in ["audit", "add"] {
        assert_eq!(reader.get(&format!("/console/{}/{path}", shop.project)).status, 403, "{path}");
    }
    assert_eq!(reader.get(&format!("{}/edit", shop.page())).status, 403);
    let mut operator = Visitor::signed_in(&service, "operator");
    let page = operator.get(&shop.page());
    assert!(page.text.contains("Scan now") && !page.text.contains("Remove"), "{}", page.text);
    for action in ["test", "pause", "remove", "edit"] {
        assert_eq!(operator.post(&format!("{}/{action}", shop.page()), &page, &[]).status, 403, "{action}");
    }
}

#[test]
fn nobody_sees_another_projects_instances() {
    let shop = Shop::with_no_server();
    shop.installation.admin(&["project", "add", "search"]);
    shop.installation.add_user("stranger", "search", "admin", PASSWORD);
    let service = shop.installation.serve(&[]);
    let mut stranger = Visitor::signed_in(&service, "stranger");
    let own = stranger.get("/console").header("location").expect("a redirect").to_owned();
    let page = stranger.get(&own);
    assert!(page.text.contains("No instance yet") && !page.text.contains("cache"), "{}", page.text);
    for path in
        [shop.page(), format!("/console/{}/instances", shop.project), format!("/console/{}/audit", shop.project)]
    {
        let answer = stranger.get(&path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text.contains("cache"), "{}", answer.text);
    }
    // Nor through a project of one's own.
    let mixed = own.replace("/instances", &format!("/instances/{}", shop.instance));
    assert_eq!(stranger.get(&mixed).status, 404);
    assert_eq!(stranger.post(&format!("{}/scan", shop.page()), &page, &[]).status, 404);
}

#[test]
fn whoever_has_roles_on_several_projects_goes_from_one_to_the_other() {
    let shop = Shop::with_no_server();
    let other = id(&shop.installation.admin(&["project", "add", "annex"]));
    shop.installation.admin(&["user", "grant", "operator", "--project", "annex", "--role", "reader"]);
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "operator");
    let page = visitor.get(&shop.page());
    assert!(page.text.contains(&format!("/console/{other}/instances")), "{}", page.text);
    assert_eq!(visitor.get(&format!("/console/{other}/instances")).status, 200);
}

#[test]
fn an_instance_is_added_scanned_and_looked_at_without_script() {
    let server = Server::with(Flavor::Valkey91).password("hunter2-hunter2").start();
    let loaded = DataSet::new().live(3_000).dead(1_000).load(&server);
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "admin");
    let add = format!("/console/{}/add", shop.project);
    let url = format!("redis://127.0.0.1:{}", server.port());
    let blank = visitor.get(&add);

    let wrong = visitor.post(&add, &blank, &[("name", "cache"), ("url", &url), ("password", "hunter2-hunter2")]);
    assert_eq!(wrong.status, 422);
    assert!(wrong.text.contains("id=\"name-fault\"") && wrong.text.contains(&url), "{}", wrong.text);
    let wrong = visitor.post(&add, &blank, &[("name", "x"), ("url", "redis://8.8.8.8:1"), ("window", "nightly")]);
    assert!(wrong.text.contains("id=\"window-fault\""), "{}", wrong.text);
    let wrong = visitor.post(&add, &blank, &[("name", "x"), ("url", "redis://u:hunter2-hunter2@8.8.8.8:1")]);
    assert!(wrong.text.contains("id=\"url-fault\"") && !wrong.text.contains("hunter2"), "{}", wrong.text);

    let fields = [("name", "sessions"), ("url", &url), ("password", "hunter2-hunter2"), ("pace", "fast")];
    let page = visitor.submit(&add, &blank, &fields);
    assert!(page.text.contains("The instance is added") && page.text.contains("valkey 9.1"), "{}", page.text);
    assert!(page.text.contains("4,000"), "keys are shown: {}", page.text);
    let path = page.text.split("action=\"").find_map(|rest| rest.split_once("/scan\"")).expect("a button").0.to_owned();

    let page = visitor.submit(&format!("{path}/scan"), &page, &[]);
    assert!(page.text.contains("The scan is accepted"), "{}", page.text);
    let ended = eventually("the scan to end", Duration::from_secs(30), || {
        let page = visitor.get(&path);
        page.text.contains("The last scan ended").then_some(page)
    });
    let released = format!("{} keys released", thousands(loaded.dead));
    assert!(ended.text.contains(&released), "{released} in {}", ended.text);
    let task =
        ended.text.split("href=\"").find(|rest| rest.contains("/tasks/")).and_then(|rest| rest.split('"').next());
    let report = visitor.get(task.expect("a link to the report"));
    for word in ["Keys released", "Slice: median", "exact", "127.0.0.1"] {
        assert!(report.text.contains(word), "{word}: {}", report.text);
    }
    let list = visitor.get(&format!("/console/{}/instances", shop.project));
    assert!(list.text.contains("sessions") && list.text.contains("1,000 released"), "{}", list.text);
    let audit = visitor.get(&format!("/console/{}/audit", shop.project));
    assert!(audit.text.contains("task.create") && audit.text.contains("instance.add"), "{}", audit.text);
    let (_, log) = service.terminate();
    assert!(!log.join("").contains("hunter2"));
}

fn thousands(value: u64) -> String {
    match value / 1000 {
        0 => value.to_string(),
        more => format!("{more},{:03}", value % 1000),
    }
}

#[test]
fn what_is_wrong_with_an_auto_scan_is_said_beside_its_field_and_what_is_right_is_kept() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "operator");
    let (page, action) = (visitor.get(&shop.page()), format!("{}/auto-scan", shop.page()));
    let good = [
        ("enabled", "on"),
        ("first_scan_at", "2100-01-01T02:00"),
        ("interval", "24h"),
        ("timeout", "48h"),
        ("scan_keys_count", "1000"),
    ];
    for (field, value) in
        [("first_scan_at", "2001-01-01T02:00"), ("interval", "daily"), ("timeout", "1h"), ("scan_keys_count", "9")]
    {
        let wrong = good.map(|(name, kept)| (name, if name == field { value } else { kept }));
        let answer = visitor.post(&action, &page, &wrong);
        assert_eq!(answer.status, 422, "{field}");
        assert!(answer.text.contains(&format!("id=\"{field}-fault\"")), "{field}: {}", answer.text);
        assert!(answer.text.contains(&format!("value=\"{value}\"")), "what was typed stays: {}", answer.text);
        assert!(visitor.get(&shop.page()).text.contains("Auto-scan"), "nothing broke");
    }
    let page = visitor.submit(&action, &page, &good);
    assert!(page.text.contains("The auto-scan is saved") && page.text.contains("2100-01-01T02:00:00"), "{}", page.text);
    let list = visitor.get(&format!("/console/{}/instances", shop.project));
    assert!(list.text.contains("2100-01-01 02:00:00 UTC"), "the next scan is shown: {}", list.text);
    let off = visitor.submit(&action, &page, &[("first_scan_at", ""), ("interval", ""), ("timeout", "")]);
    assert!(off.text.contains("value=\"24h\"") && !off.text.contains("The next scheduled scan"), "{}", off.text);
}

#[test]
fn an_instance_is_edited_without_giving_its_password_again_unless_its_address_changes() {
    let server = Server::with(Flavor::Valkey91).password("hunter2-hunter2").start();
    let shop = Shop::new(&format!("redis://:hunter2-hunter2@127.0.0.1:{}", server.port()));
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "admin");
    let edit = format!("{}/edit", shop.page());
    let page = visitor.get(&edit);
    assert!(!page.text.contains("hunter2") && page.text.contains("one is stored"), "{}", page.text);
    let url = format!("redis://127.0.0.1:{}", server.port());
    let page = visitor.submit(&edit, &page, &[("name", "moved"), ("url", &url), ("pace", "gentle")]);
    assert!(page.text.contains("<h1>moved") && page.text.contains("gentle"), "{}", page.text);
    assert!(page.text.contains("The changes are saved"), "its password is still good: {}", page.text);
    let elsewhere = format!("redis://localhost:{}", server.port());
    let answer = visitor.post(&edit, &page, &[("name", "moved"), ("url", &elsewhere)]);
    assert!(answer.text.contains("could not be looked at"), "a stored password goes nowhere else: {}", answer.text);

    let path = shop.page();
    let page = visitor.submit(&format!("{path}/pause"), &page, &[]);
    assert!(page.text.contains("chip plain\">paused") && !page.text.contains("Scan now"), "{}", page.text);
    assert_eq!(visitor.post(&format!("{path}/scan"), &page, &[]).status, 409);
    let page = visitor.submit(&format!("{path}/resume"), &page, &[]);
    let page = visitor.post(&format!("{path}/remove"), &page, &[]);
    assert!(page.text.contains("tick the box"), "{}", page.text);
    let page = visitor.submit(&format!("{path}/remove"), &page, &[("sure", "on")]);
    assert!(page.text.contains("removed") && page.text.contains("No instance yet"), "{}", page.text);
    assert_eq!(visitor.get(&path).status, 404);
}

#[test]
fn without_authentication_the_console_is_open_but_forms_from_elsewhere_are_still_refused() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&["--no-auth"]);
    let mut visitor = Visitor::new(&service);
    let page = visitor.get(&shop.page());
    assert_eq!(page.status, 200);
    assert_eq!(service.send("POST", &format!("{}/scan", shop.page()), &[], "").status, 403);
    assert_eq!(visitor.post(&format!("{}/scan", shop.page()), &page, &[]).status, 303);
}

#[test]
fn a_database_that_fails_is_our_fault_and_says_nothing_of_itself() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "reader");
    common::break_database(&shop.installation);
    let answer = visitor.get(&shop.page());
    assert_eq!(answer.status, 500);
    assert!(answer.text.contains("X-Request-Id") && !answer.text.contains("table"), "{}", answer.text);
}

#[test]
fn a_name_with_markup_in_it_is_shown_as_text() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "admin");
    let edit = format!("{}/edit", shop.page());
    let page = visitor.get(&edit);
    let url = page.text.split("name=\"url\" value=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a field");
    let name = "<img src=x onerror=alert(1)>\"'";
    let answer = visitor.post(&edit, &page, &[("name", name), ("url", url)]);
    assert_eq!(answer.status, 200, "{}", answer.text);
    for path in
        [shop.page(), edit, format!("/console/{}/instances", shop.project), format!("/console/{}/audit", shop.project)]
    {
        let page = visitor.get(&path);
        assert!(page.text.contains("img src=x") && !page.text.contains("<img"), "{path}: {}", page.text);
    }
}
