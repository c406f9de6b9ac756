//! Contents and actions of the pages, without script.

use std::time::Duration;

use keysweep_harness::{Cluster, DataSet, Flavor, Server, eventually, free_port};

use crate::{
    common::web::Web,
    past,
    visitor::{Shop, Visitor},
};

#[test]
fn an_instance_is_added_scanned_and_shown_without_script() {
    let server = Server::with(Flavor::Valkey91).password("hunter2-hunter2").start();
    let loaded = DataSet::new().live(3_000).stale(1_000).load(&server);
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
    assert!(page.text.contains("The scan is created"), "{}", page.text);
    let ended = eventually("the scan to end", Duration::from_secs(30), || {
        let page = visitor.get(&path);
        page.text.contains("The last scan finished").then_some(page)
    });
    let reclaimed = format!("{} keys reclaimed", thousands(loaded.stale));
    assert!(ended.text.contains(&reclaimed), "{reclaimed} in {}", ended.text);
    let task =
        ended.text.split("href=\"").find(|rest| rest.contains("/tasks/")).and_then(|rest| rest.split('"').next());
    let report = visitor.get(task.expect("a link to the report"));
    for word in ["Keys reclaimed", "id=\"left\">none<", "Slice: median", "exact", "127.0.0.1"] {
        assert!(report.text.contains(word), "{word}: {}", report.text);
    }
    let list = visitor.get(&format!("/console/{}/instances", shop.project));
    assert!(list.text.contains("sessions") && list.text.contains("1,000 reclaimed"), "{}", list.text);
    let target =
        |below| [("hold_level", "advise"), ("hold_below", below), ("hold_max_effort", "7"), ("hold_max_hz", "")];
    let wrong = visitor.post(&format!("{path}/hold"), &ended, &target("99"));
    assert!(wrong.status == 422 && wrong.text.contains("Invalid below 0.99"), "{}", wrong.text);
    assert!(wrong.text.contains("The stale share is not held"), "the level was not saved: {}", wrong.text);
    let unknown = [("hold_level", "always"), ("hold_below", "8"), ("hold_max_effort", "7"), ("hold_max_hz", "")];
    let wrong = visitor.post(&format!("{path}/hold"), &ended, &unknown);
    assert!(
        wrong.text.contains("<option value=\"observe\" selected>"),
        "the saved level stays selected: {}",
        wrong.text
    );
    let limits = |stall| [&target("8")[..], &[("hold_max_added_stall", stall), ("hold_interval", "30s")]].concat();
    let wrong = visitor.post(&format!("{path}/hold"), &ended, &limits("99"));
    let fault = "id=\"hold_max_added_stall-fault\">Invalid max_added_stall_ms 99";
    assert!(wrong.status == 422 && wrong.text.contains(fault), "{}", wrong.text);
    assert!(wrong.text.contains("<details open><summary>Limits"), "the error is not folded away: {}", wrong.text);
    let page = visitor.submit(&format!("{path}/hold"), &ended, &limits("0.5"));
    assert!(page.text.contains("The target is saved") && page.text.contains("value=\"8\""), "{}", page.text);
    for saved in ["value=\"0.5\"", "value=\"30s\"", "value=\"60s\"", "<details><summary>Limits"] {
        assert!(page.text.contains(saved), "{saved}: {}", page.text);
    }
    let audit = visitor.get(&format!("/console/{}/audit", shop.project));
    for action in ["task.create", "instance.add", "hold.set"] {
        assert!(audit.text.contains(action), "{action}: {}", audit.text);
    }
    let tasks = visitor.get(&format!("/console/{}/audit?kind=task", shop.project));
    assert!(tasks.text.contains("<code>task.create") && !tasks.text.contains("<code>hold.set"), "{}", tasks.text);
    assert!(
        tasks.text.contains("audit?kind=task&amp;actor=admin")
            || tasks.text.contains("audit?kind=task&#38;actor=admin")
    );
    let file =
        |visitor: &mut Visitor, query: &str| visitor.get(&format!("/console/{}/audit/export?{query}", shop.project));
    let csv = file(&mut visitor, "kind=task&format=csv");
    assert_eq!(csv.header("content-type"), Some("text/csv; charset=utf-8"));
    assert!(csv.text.starts_with("seq,happened_at,actor,action,subject,detail\n"), "{}", csv.text);
    assert!(csv.text.contains(",admin,task.create,") && !csv.text.contains("hold.set"), "{}", csv.text);
    let json = file(&mut visitor, "format=json");
    let entries = json.body.as_array().expect("an array");
    assert!(json.header("content-disposition").is_some_and(|name| name.contains("audit.json")));
    for action in ["task.create", "instance.add", "hold.set"] {
        assert!(entries.iter().any(|entry| entry["action"] == action), "{action}: {}", json.text);
    }
    let none = visitor.get(&format!("/console/{}/audit?kind=task&actor=%3Cb%3E", shop.project));
    assert!(none.text.contains("No entries yet.") && !none.text.contains("<b>"), "{}", none.text);
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
fn invalid_auto_scan_fields_have_errors_beside_them_and_valid_settings_are_saved() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "operator");
    let (page, action) = (visitor.get(&shop.page()), format!("{}/auto-scan", shop.page()));
    let good = [
        ("below", "5%"),
        ("enabled", "on"),
        ("first_scan_at", "2100-01-01T02:00"),
        ("interval", "24h"),
        ("timeout", "48h"),
        ("scan_keys_count", "1000"),
    ];
    for (field, value) in [
        ("first_scan_at", "2001-01-01T02:00"),
        ("interval", "daily"),
        ("timeout", "1h"),
        ("scan_keys_count", "9"),
        ("below", "half"),
    ] {
        let wrong = good.map(|(name, kept)| (name, if name == field { value } else { kept }));
        let answer = visitor.post(&action, &page, &wrong);
        assert_eq!(answer.status, 422, "{field}");
        assert!(answer.text.contains(&format!("id=\"{field}-fault\"")), "{field}: {}", answer.text);
        assert!(answer.text.contains(&format!("value=\"{value}\"")), "the form keeps what was typed: {}", answer.text);
        assert!(visitor.get(&shop.page()).text.contains("Auto-scan"), "the page still works");
    }
    let previewed = [("preview", "on"), ("below", ""), ("interval", "12h")];
    let previewed = [&previewed, &good[1..3], &good[4..]].concat();
    let preview = visitor.post(&action, &page, &previewed);
    assert_eq!(preview.status, 200, "{}", preview.text);
    for run in ["not saved yet", "2100-01-01 02:00:00 UTC", "2100-01-01 14:00:00 UTC", "2100-01-02 02:00:00 UTC"] {
        assert!(preview.text.contains(run), "{run}: {}", preview.text);
    }
    assert!(preview.text.contains("value=\"12h\""), "the form keeps what was typed: {}", preview.text);
    assert!(!visitor.get(&shop.page()).text.contains("2100-01-01"), "a preview saves nothing");
    let page = visitor.submit(&action, &page, &good);
    assert!(page.text.contains("The auto-scan is saved") && page.text.contains("2100-01-01T02:00:00"), "{}", page.text);
    assert!(page.text.contains("value=\"5%\"") && page.text.contains("until scans have measured"), "{}", page.text);
    let list = visitor.get(&format!("/console/{}/instances", shop.project));
    assert!(list.text.contains("2100-01-01 02:00:00 UTC"), "the next scan is shown: {}", list.text);
    let off = visitor.submit(&action, &page, &[("first_scan_at", ""), ("interval", ""), ("timeout", "")]);
    assert!(off.text.contains("value=\"24h\"") && !off.text.contains("Next scheduled scan"), "{}", off.text);
}

#[test]
fn an_auto_scan_of_a_server_that_cannot_be_scanned_is_not_enabled() {
    let web = Web::start();
    let shop = Shop::new(&web.url());
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "operator");
    let (page, action) = (visitor.get(&shop.page()), format!("{}/auto-scan", shop.page()));
    let form =
        [("first_scan_at", "2100-01-01T02:00"), ("interval", "24h"), ("timeout", "48h"), ("scan_keys_count", "20")];
    let enabled = [&[("enabled", "on")], form.as_slice()].concat();
    let refused = visitor.post(&action, &page, &enabled);
    assert_eq!(refused.status, 409, "{}", refused.text);
    assert!(refused.text.contains("neither Redis nor Valkey"), "{}", refused.text);
    let page = visitor.get(&shop.page());
    assert!(!page.text.contains("2100-01-01") && !page.text.contains("Next scheduled scan"), "{}", page.text);
    // Settings of a disabled auto-scan are saved: they scan nothing.
    let page = visitor.submit(&action, &page, &form);
    assert!(page.text.contains("The auto-scan is saved") && page.text.contains("2100-01-01"), "{}", page.text);
}

#[test]
fn editing_an_instance_needs_its_password_only_if_its_address_changes() {
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
    assert!(page.text.contains("The changes are saved"), "its password is still valid: {}", page.text);
    let answer = visitor.post(&edit, &page, &[("name", "moved"), ("url", &url), ("pace", "brisk")]);
    assert_eq!(answer.status, 422, "{}", answer.text);
    assert!(answer.text.contains("id=\"pace-fault\"") && answer.text.contains("brisk"), "{}", answer.text);
    assert!(answer.text.contains("<option selected>gentle"), "the saved pace stays selected: {}", answer.text);
    assert!(visitor.get(&shop.page()).text.contains("gentle"), "nothing was changed");
    let elsewhere = format!("redis://localhost:{}", server.port());
    let answer = visitor.post(&edit, &page, &[("name", "moved"), ("url", &elsewhere)]);
    assert!(answer.text.contains("could not be polled"), "the stored password is not sent elsewhere: {}", answer.text);

    let path = shop.page();
    let page = visitor.submit(&format!("{path}/pause"), &page, &[]);
    assert!(page.text.contains("badge plain\">paused") && !page.text.contains("Scan now"), "{}", page.text);
    assert_eq!(visitor.post(&format!("{path}/scan"), &page, &[]).status, 409);
    let page = visitor.submit(&format!("{path}/resume"), &page, &[]);
    let page = visitor.post(&format!("{path}/remove"), &page, &[]);
    assert!(page.text.contains("tick the box"), "{}", page.text);
    let page = visitor.submit(&format!("{path}/remove"), &page, &[("sure", "on")]);
    assert!(page.text.contains("removed") && page.text.contains("No instance yet"), "{}", page.text);
    assert_eq!(visitor.get(&path).status, 404);
}

#[test]
fn many_instances_are_shown_page_by_page_and_found_by_name() {
    let shop = Shop::with_no_server();
    for number in 0..52 {
        let host = if number < 50 { "127.0.0.2" } else { "127.0.0.3" };
        let (name, url) = (format!("shard-{number:02}"), format!("redis://{host}:{}", 1_000 + number));
        shop.installation.register_another("shop", &name, &url, &[]);
    }
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "reader");
    let list = format!("/console/{}/instances", shop.project);
    let page = visitor.get(&list);
    assert!(page.text.contains("shard-48<") && !page.text.contains("shard-49<"), "50 are on the first page");
    assert!(page.text.contains("rel=\"next\"") && !page.text.contains("rel=\"prev\""));
    let page = visitor.get(&format!("{list}?page=1"));
    assert!(page.text.contains("shard-51<") && page.text.contains("rel=\"prev\""), "{}", page.text);
    let page = visitor.get(&format!("{list}?search=SHARD-17"));
    assert!(page.text.contains("shard-17<") && !page.text.contains("shard-18<"), "{}", page.text);
    let page = visitor.get(&format!("{list}?search=127.0.0.2&page=1"));
    assert!(page.text.contains("shard-00<") && !page.text.contains("rel=\"prev\""), "50 fill one page: {}", page.text);
    let page = visitor.get(&format!("{list}?sort=name&page=1"));
    assert!(page.text.contains("51–53 of 53"), "{}", page.text);
    shop.installation.admin(&["instance", "pause", "shard-07", "--project", "shop"]);
    let page = visitor.get(&format!("{list}?state=paused"));
    assert!(page.text.contains("shard-07<") && !page.text.contains("shard-08<"), "{}", page.text);
    assert!(page.text.contains("All (53)") && page.text.contains("Paused (1)"), "{}", page.text);
    let page = visitor.get(&format!("{list}?search=%3Cb%3E"));
    assert!(page.text.contains("No instance has") && !page.text.contains("<b>"), "{}", page.text);
}

#[test]
fn a_scan_of_a_cluster_is_reported_shard_by_shard() {
    let cluster = Cluster::start(Flavor::Valkey91, 3, false);
    let (_, stale) = cluster.load(3_000, 900);
    let shop = Shop::new(&cluster.url());
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "operator");
    let page = visitor.get(&shop.page());
    visitor.submit(&format!("{}/scan", shop.page()), &page, &[]);
    let report = eventually("the scan to end", Duration::from_secs(30), || {
        let page = visitor.get(&shop.page());
        let task =
            page.text.split("href=\"").find(|rest| rest.contains("/tasks/")).and_then(|rest| rest.split('"').next());
        let report = visitor.get(task.expect("a link to the scan"));
        report.text.contains("Impact on the server").then_some(report)
    });
    for node in cluster.nodes() {
        assert!(report.text.contains(&node.address().to_string()), "{}", report.text);
    }
    let reclaimed = format!("id=\"reclaimed\">{}<", thousands(stale));
    assert!(report.text.contains(&reclaimed), "{}", report.text);
}

#[test]
fn instances_are_selected_by_label_and_surveyed_without_script() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(900).stale(300).load(&server);
    let _replica = server.replica();
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "admin");
    let add = format!("/console/{}/add", shop.project);
    let blank = visitor.get(&add);
    let fields = [("name", "sessions"), ("url", &server.url()), ("labels", "env=prod, team=web"), ("sampling", "off")];
    let wrong = visitor.post(&add, &blank, &[("name", "x"), ("url", &server.url()), ("labels", "env")]);
    assert_eq!(wrong.status, 422);
    assert!(wrong.text.contains("id=\"labels-fault\"") && wrong.text.contains("NAME=VALUE"), "{}", wrong.text);
    let page = visitor.submit(&add, &blank, &fields);
    assert!(page.text.contains("env=prod") && page.text.contains("Background estimates are off"), "{}", page.text);
    let edit = page.text.split("href=\"").find(|rest| rest.contains("/edit\"")).expect("a link");
    let edit = edit.split('"').next().expect("a path").to_owned();
    let form = visitor.get(&edit);
    assert!(form.text.contains("value=\"env=prod team=web\""), "{}", form.text);
    assert!(form.text.contains("<option value=\"off\" selected>"), "{}", form.text);

    let list = format!("/console/{}/instances", shop.project);
    let all = visitor.get(&list);
    assert!(all.text.contains("sessions") && all.text.contains(">cache<"), "{}", all.text);
    let link = all.text.split("href=\"").find(|rest| rest.contains("label=env%3Dprod")).expect("a label is a link");
    let link = link.split('"').next().expect("a path").replace("&amp;", "&").replace("&#38;", "&");
    let selected = visitor.get(&link);
    assert!(selected.text.contains("sessions") && !selected.text.contains(">cache<"), "{}", selected.text);
    assert!(selected.text.contains("env=prod ×"), "the selection can be left: {}", selected.text);

    let survey = format!("/console/{}/survey", shop.project);
    let page = visitor.get(&survey);
    assert!(page.text.contains("There was no survey"), "{}", page.text);
    let wrong = visitor.post(&survey, &page, &[("labels", "env=none"), ("below", "10")]);
    assert!(wrong.status == 422 && wrong.text.contains("No instance has these labels"), "{}", wrong.text);
    let wrong = visitor.post(&survey, &page, &[("labels", ""), ("below", "all")]);
    assert!(wrong.status == 422 && wrong.text.contains("id=\"below-fault\""), "{}", wrong.text);
    let page = visitor.submit(&survey, &page, &[("labels", ""), ("below", "10")]);
    assert!(page.text.contains("The survey is created"), "{}", page.text);
    let done = eventually("the survey to end", Duration::from_secs(30), || {
        let page = visitor.get(&format!("{survey}?sort=name"));
        page.text.contains("2 of 2 instances").then_some(page)
    });
    let (cache, sessions) = (done.text.find(">cache<").expect("a row"), done.text.find(">sessions<").expect("a row"));
    assert!(cache < sessions, "sorted by name");
    assert!(done.text.contains("unknown") && done.text.contains("1,200"), "{}", done.text);
    for cell in ["data-label=\"Effort\" class=\"num\">1<", "data-label=\"hz\" class=\"num\">10<"] {
        assert!(done.text.contains(cell), "{cell}: {}", done.text);
    }
    let mut reader = Visitor::signed_in(&service, "reader");
    let seen = reader.get(&survey);
    assert!(seen.text.contains("sessions") && !seen.text.contains("<button class=\"primary\""), "{}", seen.text);
    assert_eq!(reader.post(&survey, &seen, &[("below", "10")]).status, 403);
}

#[test]
fn the_last_30_days_of_an_instance_are_a_table_with_events_and_a_verdict() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "admin");
    let empty = visitor.get(&shop.page());
    assert!(empty.text.contains("No estimate yet.") && empty.text.contains("No estimates, scans or changes"));
    past::write(&shop.installation, &shop.project, &shop.instance);
    let page = visitor.get(&shop.page());
    assert!(page.text.contains("At most 7.3 % are stale, below 10.0 %."), "{}", page.text);
    let rows = page.text.matches("data-share=").count();
    assert_eq!(rows, 22 + 7 * 24, "one a day, then one an hour");
    for part in ["data-low=", "data-high=", "data-memory=", "scan, 540,000 keys reclaimed", "data-reclaimed=\"540000\""]
    {
        assert!(page.text.contains(part), "{part}: {}", page.text);
    }
    assert_eq!(page.text.matches("data-event=\"config\"").count(), 3);
    assert!(page.text.contains("effort 1 → 4: 900 keys expire a second"), "{}", page.text);
    assert!(!page.text.contains("data-target"), "nothing is held");
    assert!(!page.text.contains("before the scan that finished"), "{}", page.text);
    let advise = [("hold_level", "advise"), ("hold_below", "8"), ("hold_max_effort", "7"), ("hold_max_hz", "")];
    let page = visitor.submit(&format!("{}/hold", shop.page()), &page, &advise);
    assert!(page.text.contains("data-target=\"0.08\"") && !page.text.contains("data-floor"), "{}", page.text);
    assert!(page.text.contains("are stale, below 8.0 %."), "the verdict is on this target: {}", page.text);
    let live = visitor.get(&format!("{}?part=live", shop.page()));
    assert!(!live.text.contains("data-share") && live.text.contains("id=\"verdict\""), "{}", live.text);
    past::write_scan(&shop.installation, &shop.instance);
    let scanned = visitor.get(&shop.page());
    for part in ["and left about 1,200 (0.0", "before the scan that finished", "From before the last scan."] {
        assert!(scanned.text.contains(part), "{part}: {}", scanned.text);
    }
    assert!(!scanned.text.contains("are stale, below 8.0 %."), "the verdict is from before the scan");
}

#[test]
fn the_tasks_of_all_instances_are_listed_by_status_page_by_page() {
    let server = Server::start(Flavor::Valkey91);
    DataSet::new().live(100).stale(50).load(&server);
    let shop = Shop::new(&server.url());
    let gone = shop.installation.register_another("shop", "gone", &format!("redis://127.0.0.1:{}", free_port()), &[]);
    // Before a worker runs, which could claim them.
    past::write_tasks(&shop.installation, &shop.project, &shop.instance, 60);
    past::write_tasks(&shop.installation, &shop.project, &gone, 1);
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "operator");
    let activity = format!("/console/{}/activity", shop.project);
    let empty = visitor.get(&format!("{activity}?status=success"));
    assert!(empty.text.contains("No tasks with the status success yet."), "{}", empty.text);
    visitor.submit(&format!("{}/scan", shop.page()), &empty, &[]);
    let finished = eventually("the scan to finish", Duration::from_secs(60), || {
        let page = visitor.get(&activity);
        page.text.contains("badge good\">success").then_some(page)
    });
    let (newer, older) = (finished.text.find(">cache<").expect("a row"), finished.text.find(">gone<").expect("a row"));
    assert!(newer < older && !finished.text.contains("data-active"), "newest first: {}", finished.text);
    assert!(finished.text.contains("data-label=\"Why\" class=\"wrap\">cancelled"), "a reason: {}", finished.text);
    let unknown = visitor.get(&format!("{activity}?status=done&before=first"));
    assert!(unknown.text.contains("badge good\">success"), "an unknown status selects all: {}", unknown.text);

    let failed = visitor.get(&format!("{activity}?status=failed"));
    assert!(failed.text.contains(">gone<") && !failed.text.contains("badge good\">success"), "{}", failed.text);
    assert_eq!(failed.text.matches("<th scope=\"row\"").count(), 25, "a page is bounded");
    let next = |page: &str| {
        let link = page.split("href=\"").find(|rest| rest.contains("rel=\"next\"")).expect("a link to older ones");
        link.split('"').next().expect("a path").replace("&amp;", "&").replace("&#38;", "&")
    };
    let link = next(&failed.text);
    assert!(link.contains("status=failed"), "{link}");
    let older = visitor.get(&link);
    assert_eq!(older.text.matches("<th scope=\"row\"").count(), 25, "{}", older.text);
    let oldest = visitor.get(&next(&older.text));
    assert_eq!(oldest.text.matches("<th scope=\"row\"").count(), 11, "{}", oldest.text);
    assert!(oldest.text.contains(">Newest<") && !oldest.text.contains("rel=\"next\""), "{}", oldest.text);

    let link =
        failed.text.split("href=\"").find(|rest| rest.contains("/tasks/")).and_then(|rest| rest.split('"').next());
    let task = visitor.get(link.expect("a link to the task"));
    let (why, result) = (task.text.find("<strong>cancelled"), task.text.find(">Result<"));
    assert!(why.is_some() && why < result, "a failed task says why first: {}", task.text);
    for empty in ["Keys reclaimed", "Keys scanned", "Started", "Duration", "Shards", "Impact on the server"] {
        assert!(!task.text.contains(empty), "{empty} of a task that did not start: {}", task.text);
    }
}
