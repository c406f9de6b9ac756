//! Requests that the console refuses: forms of other sites, roles that are too low, other projects.

use keysweep_harness::id;

use crate::{
    common,
    visitor::{PASSWORD, Shop, Visitor, form, token},
};

#[test]
fn a_form_of_another_site_is_refused_and_changes_nothing() {
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
    let selected = format!("/console/{}/scan", shop.project);
    let body = form(&token(&other), &[("instance", &shop.instance)]);
    assert_eq!(visitor.send("POST", &selected, &[], &body).status, 403, "scans of selected instances");
    let history = visitor.get(&shop.page());
    assert!(history.text.contains("No scans yet."));
    let origin = format!("http://{}", visitor.host);
    assert_eq!(
        visitor.send("POST", &scan, &[("Origin", &origin)], &good).status,
        303,
        "a form of our own page is accepted"
    );
}

#[test]
fn every_answer_has_security_headers() {
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
        format!("{project}/activity"),
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
fn a_reader_sees_no_buttons_and_every_action_is_refused() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut reader = Visitor::signed_in(&service, "reader");
    let page = reader.get(&shop.page());
    // The only form signs out.
    assert_eq!(page.text.matches("<form").count(), 1, "{}", page.text);
    for action in ["scan", "test", "pause", "resume", "remove", "auto-scan", "edit"] {
        let answer = reader.post(&format!("{}/{action}", shop.page()), &page, &[("sure", "on")]);
        assert_eq!(answer.status, 403, "{action}");
        assert!(answer.text.contains("Permission denied"), "{action}: {}", answer.text);
    }
    for action in ["scan", "schedule", "pause", "resume"] {
        let answer =
            reader.post(&format!("/console/{}/{action}", shop.project), &page, &[("instance", &shop.instance)]);
        assert_eq!(answer.status, 403, "{action} of selected instances");
    }
    assert!(
        !reader.get(&format!("/console/{}/instances", shop.project)).text.contains("checkbox"),
        "nothing to select"
    );
    for path in ["audit", "audit/export", "add"] {
        assert_eq!(reader.get(&format!("/console/{}/{path}", shop.project)).status, 403, "{path}");
    }
    assert_eq!(reader.get(&format!("{}/edit", shop.page())).status, 403);
    let mut operator = Visitor::signed_in(&service, "operator");
    let page = operator.get(&shop.page());
    assert!(page.text.contains("Scan now") && !page.text.contains("Remove"), "{}", page.text);
    for action in ["test", "pause", "remove", "edit"] {
        assert_eq!(operator.post(&format!("{}/{action}", shop.page()), &page, &[]).status, 403, "{action}");
    }
    for action in ["pause", "resume"] {
        let path = format!("/console/{}/{action}", shop.project);
        assert_eq!(
            operator.post(&path, &page, &[("instance", &shop.instance)]).status,
            403,
            "{action} of selected ones"
        );
    }
}

#[test]
fn instances_of_other_projects_are_hidden() {
    let shop = Shop::with_no_server();
    shop.installation.admin(&["project", "add", "search"]);
    shop.installation.add_user("stranger", "search", "admin", PASSWORD);
    let service = shop.installation.serve(&[]);
    let mut stranger = Visitor::signed_in(&service, "stranger");
    let own = stranger.get("/console").header("location").expect("a redirect").to_owned();
    let page = stranger.get(&own);
    assert!(page.text.contains("No instance yet") && !page.text.contains("cache"), "{}", page.text);
    let pages = ["instances", "activity", "audit"].map(|page| format!("/console/{}/{page}", shop.project));
    for path in [&[shop.page()], pages.as_slice()].concat() {
        let answer = stranger.get(&path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text.contains("cache"), "{}", answer.text);
    }
    // The id of another project's instance is unknown in one's own project as well.
    let mixed = own.replace("/instances", &format!("/instances/{}", shop.instance));
    assert_eq!(stranger.get(&mixed).status, 404);
    assert_eq!(stranger.post(&format!("{}/scan", shop.page()), &page, &[]).status, 404);
}

#[test]
fn a_user_with_roles_on_several_projects_can_switch_between_them() {
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
fn without_authentication_the_console_is_open_and_forms_of_other_sites_are_refused() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&["--no-auth"]);
    let mut visitor = Visitor::new(&service);
    let page = visitor.get(&shop.page());
    assert_eq!(page.status, 200);
    assert_eq!(service.send("POST", &format!("{}/scan", shop.page()), &[], "").status, 403);
    assert_eq!(visitor.post(&format!("{}/scan", shop.page()), &page, &[]).status, 303);
    // After DNS rebinding a browser takes a foreign host name for the same origin.
    for (host, status) in [("rebound.example:7080", 403), ("localhost", 200), ("[::1]:7080", 200), ("", 403)] {
        assert_eq!(service.send("GET", &shop.page(), &[("Host", host)], "").status, status, "{host}");
    }
}

#[test]
fn a_failing_database_is_an_internal_error_without_details() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "reader");
    common::break_database(&shop.installation);
    let answer = visitor.get(&shop.page());
    assert_eq!(answer.status, 500);
    assert!(answer.text.contains("X-Request-Id") && !answer.text.contains("table"), "{}", answer.text);
}

#[test]
fn markup_in_a_name_is_escaped() {
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
