//! The list of instances: what it shows of each, and actions on several of them at once, without script.

use std::time::Duration;

use keysweep_harness::{Flavor, Server, eventually, free_port};

use crate::visitor::{Shop, Visitor, form, token};

/// Returns the rows of a list, each as text.
fn rows(list: &str) -> Vec<&str> {
    list.split("<th scope=\"row\"").skip(1).collect()
}

#[test]
fn selected_instances_are_handled_one_by_one_and_those_left_out_are_named() {
    let shop = Shop::with_no_server();
    let nowhere = format!("redis://127.0.0.1:{}", free_port());
    let [carts, feeds] = ["carts", "feeds"].map(|name| shop.installation.register_another("shop", name, &nowhere, &[]));
    shop.installation.admin(&["instance", "pause", "feeds", "--project", "shop"]);
    let service = shop.installation.serve(&[]);
    let mut operator = Visitor::signed_in(&service, "operator");
    let list = format!("/console/{}/instances", shop.project);
    let [scan, schedule, pause, resume] =
        ["scan", "schedule", "pause", "resume"].map(|action| format!("/console/{}/{action}", shop.project));
    let page = operator.get(&list);
    assert_eq!(page.text.matches("type=\"checkbox\" name=\"instance\"").count(), 3);
    assert!(page.text.contains("Scan selected") && !page.text.contains("Pause selected"), "{}", page.text);

    let none = operator.post(&scan, &page, &[("view", "sort=name")]);
    assert!(none.status == 422 && none.text.contains("select instances first"), "{}", none.text);
    let many: Vec<String> = (0..51).map(|number| number.to_string()).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|id| ("instance", id.as_str())).collect();
    let many = operator.post(&scan, &page, &many);
    assert!(many.status == 422 && many.text.contains("at most 50 instances"), "{}", many.text);

    let gone = "0123456789abcdef0123456789abcdef";
    let some = [("instance", shop.instance.as_str()), ("instance", &feeds), ("instance", gone), ("view", "sort=name")];
    let partial = operator.post(&scan, &page, &some);
    assert_eq!(partial.status, 409);
    for part in [
        "1 of 3 instances have a scan. These were left out:",
        "feeds: the instance is paused",
        &format!("{gone}: the instance no longer exists"),
        "sort=name",
    ] {
        assert!(partial.text.contains(part), "{part}: {}", partial.text);
    }
    let both = [("instance", shop.instance.as_str()), ("instance", &carts), ("view", "search=a&page=0")];
    let done = operator.post(&scan, &page, &both);
    let location = done.header("location").expect("a redirect").to_owned();
    assert!(location.contains("search=a") && location.ends_with("done=scan-selected"), "{location}");
    assert!(operator.get(&location).text.contains("The scans are created."), "the list says so");

    // Every field is checked before anything is saved; then each instance has the settings.
    let form = operator.post(&schedule, &page, &both);
    assert!(form.status == 200 && form.text.contains("Schedule 2 instances"), "{}", form.text);
    assert!(form.text.contains(">cache</li>") && form.text.contains(">carts</li>"), "{}", form.text);
    let filled = |interval| {
        let settings = [
            ("save", "on"),
            ("enabled", "on"),
            ("first_scan_at", "2100-01-01T02:00"),
            ("interval", interval),
            ("timeout", "48h"),
            ("scan_keys_count", if interval == "24h" { "1000" } else { "9" }),
        ];
        [&both[..], &settings].concat()
    };
    let wrong = operator.post(&schedule, &form, &filled("daily"));
    assert_eq!(wrong.status, 422);
    for part in ["id=\"interval-fault\"", "id=\"scan_keys_count-fault\"", "Nothing is saved", "value=\"daily\""] {
        assert!(wrong.text.contains(part), "{part}: {}", wrong.text);
    }
    assert_eq!(wrong.text.matches(" autofocus").count(), 1, "{}", wrong.text);
    let saved = operator.submit(&schedule, &form, &filled("24h"));
    assert!(saved.text.contains("The auto-scan of each instance is saved."), "{}", saved.text);
    let all = operator.get(&format!("{list}?sort=name"));
    let next = |name: &str| {
        let row = rows(&all.text).into_iter().find(|row| row.contains(&format!(">{name}</a>"))).expect("a row");
        row.contains("2100-01-01 02:00:00 UTC")
    };
    assert_eq!((next("cache"), next("carts"), next("feeds")), (true, true, false), "{}", all.text);

    let mut admin = Visitor::signed_in(&service, "admin");
    let page = admin.get(&list);
    let resumed = admin.submit(&resume, &page, &[("instance", &feeds)]);
    assert!(resumed.text.contains("The instances accept scans again."), "{}", resumed.text);
    let paused = admin.submit(&pause, &page, &both);
    assert!(paused.text.contains("The instances are paused"), "{}", paused.text);
    let audit = admin.get(&format!("/console/{}/audit/export?format=json", shop.project));
    let count = |actor: &str, action: &str| {
        let entries = audit.body.as_array().expect("an array");
        entries.iter().filter(|entry| entry["actor"] == actor && entry["action"] == action).count()
    };
    assert_eq!((count("operator", "auto_scan.set"), count("admin", "instance.pause")), (2, 2), "{}", audit.text);
    assert_eq!(count("admin", "instance.resume"), 1);
    // The scan of cache was active still, or had failed by then.
    assert!((2..=3).contains(&count("operator", "task.create")), "one entry a scan: {}", audit.text);
    let foreign = form_of_another_browser(&operator.get(&list), &shop.instance);
    assert_eq!(admin.send("POST", &pause, &[], &foreign).status, 403);
}

fn form_of_another_browser(page: &keysweep_harness::Answer, instance: &str) -> String {
    form(&token(page), &[("instance", instance)])
}

#[test]
fn a_wrong_password_a_tls_error_and_a_server_that_is_away_are_told_apart_each_with_its_next_step() {
    let server = Server::with(Flavor::Valkey91).password("hunter2-hunter2").start();
    let shop = Shop::with_no_server();
    let port = server.port();
    let add = |name: &str, url: &str| shop.installation.register_another("shop", name, url, &[]);
    let locked = add("locked", &format!("redis://127.0.0.1:{port}"));
    let plain = add("plain", &format!("rediss://:hunter2-hunter2@127.0.0.1:{port}"));
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "admin");
    for (instance, title, next, badge, short) in [
        (
            &locked,
            "Authentication failed",
            "Type the current user and password",
            "authentication failed",
            "check user and password",
        ),
        (&plain, "TLS error", "Check the CA bundle", "TLS error", "check certificates and scheme"),
        (
            &shop.instance,
            "Unreachable",
            "Check that the server is running",
            "unreachable",
            "check address and firewall",
        ),
    ] {
        let path = format!("/console/{}/instances/{instance}", shop.project);
        let page = visitor.get(&path);
        let tested = visitor.post(&format!("{path}/test"), &page, &[]);
        assert!(tested.text.contains("The server could not be polled"), "{}", tested.text);
        let page = visitor.get(&path);
        assert!(page.text.contains(&format!("<strong>{title}</strong>")) && page.text.contains(next), "{}", page.text);
        assert!(page.text.contains("<button id=\"scan\"") && page.text.contains("A scan fails until"), "{}", page.text);
        let list = visitor.get(&format!("/console/{}/instances?state=unreachable", shop.project));
        let row =
            rows(&list.text).into_iter().find(|row| row.contains(&format!("value=\"{instance}\""))).expect("a row");
        assert!(row.contains(&format!("badge bad\">{badge}<")) && row.contains(short), "{row}");
    }
    let list = visitor.get(&format!("/console/{}/instances", shop.project));
    assert!(list.text.contains("Unreachable</dt><dd class=\"big bad\">3<"), "{}", list.text);

    // A failed scan is seen in the list until another one succeeds.
    let page = visitor.get(&shop.page());
    visitor.submit(&format!("{}/scan", shop.page()), &page, &[]);
    let failed = eventually("the scan to fail", Duration::from_secs(30), || {
        let list = visitor.get(&format!("/console/{}/instances?state=failed", shop.project));
        (rows(&list.text).len() == 1).then_some(list)
    });
    assert!(failed.text.contains("<span class=\"bad\">failed: unreachable</span>"), "{}", failed.text);
    let page = visitor.get(&shop.page());
    assert!(page.text.contains("<strong>unreachable</strong>: "), "why the last scan failed: {}", page.text);
    let (_, log) = service.terminate();
    assert!(!log.join("").contains("hunter2"));
}
