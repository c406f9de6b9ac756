//! The form of an instance: all errors at once, and a test of the connection before anything is saved.

use keysweep_harness::{DataSet, Flavor, Server, free_port};

use crate::visitor::{Shop, Visitor};

#[test]
fn every_invalid_field_has_its_error_and_the_first_one_takes_the_focus() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "admin");
    let fields = [
        ("name", " "),
        ("url", "http://127.0.0.1"),
        ("labels", "env"),
        ("window", "nightly"),
        ("pace", "brisk"),
        ("sampling", "always"),
    ];
    for path in [format!("/console/{}/add", shop.project), format!("{}/edit", shop.page())] {
        let page = visitor.get(&path);
        let wrong = visitor.post(&path, &page, &fields);
        assert_eq!(wrong.status, 422, "{path}");
        for (field, _) in fields {
            assert!(wrong.text.contains(&format!("id=\"{field}-fault\"")), "{path}, {field}: {}", wrong.text);
        }
        assert_eq!(wrong.text.matches(" autofocus").count(), 1, "{path}: {}", wrong.text);
        let first = wrong.text.split("<input id=\"name\"").nth(1).and_then(|rest| rest.split('>').next());
        assert!(first.is_some_and(|name| name.contains("autofocus")), "{path}: {}", wrong.text);
        let rest = visitor.post(&path, &page, &[("name", "x"), ("url", "rediss://127.0.0.1:1"), ("ca", "no PEM")]);
        assert!(rest.text.contains("id=\"connection-fault\" tabindex=\"-1\" autofocus"), "{path}: {}", rest.text);
    }
    let list = visitor.get(&format!("/console/{}/instances", shop.project));
    assert_eq!(list.text.matches("<th scope=\"row\"").count(), 1, "nothing was added");
}

#[test]
fn a_connection_is_tested_without_saving_it_and_a_stored_password_goes_to_its_own_address_only() {
    let server = Server::with(Flavor::Valkey91).password("hunter2-hunter2").start();
    DataSet::new().live(1_200).load(&server);
    let shop = Shop::new(&format!("redis://:hunter2-hunter2@127.0.0.1:{}", server.port()));
    let service = shop.installation.serve(&[]);
    let mut visitor = Visitor::signed_in(&service, "admin");
    let (add, url) = (format!("/console/{}/add", shop.project), format!("redis://127.0.0.1:{}", server.port()));
    let blank = visitor.get(&add);
    let mut test = |path: &str, url: &str, password: &str| {
        let answer = visitor.post(path, &blank, &[("test", "on"), ("url", url), ("password", password)]);
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
        (answer.status, answer.text)
    };
    let (status, good) = test(&add, &url, "hunter2-hunter2");
    assert!(status == 200 && good.contains("The server answers: valkey 9.1") && good.contains("1,200 keys"), "{good}");
    let (_, wrong) = test(&add, &url, "hunter2");
    assert!(wrong.contains("<strong>Authentication failed</strong>"), "{wrong}");
    let (_, away) = test(&add, &format!("redis://127.0.0.1:{}", free_port()), "");
    assert!(away.contains("<strong>Unreachable</strong>"), "{away}");
    let (status, invalid) = test(&add, "http://127.0.0.1", "");
    assert!(status == 422 && invalid.contains("id=\"url-fault\""), "{invalid}");

    let edit = format!("{}/edit", shop.page());
    let (_, stored) = test(&edit, &url, "");
    assert!(stored.contains("The server answers"), "the stored password is used for the stored address: {stored}");
    let (_, elsewhere) = test(&edit, &format!("redis://localhost:{}", server.port()), "");
    assert!(elsewhere.contains("<strong>Authentication failed</strong>"), "and for no other: {elsewhere}");
    let list = visitor.get(&format!("/console/{}/instances", shop.project));
    assert_eq!(list.text.matches("<th scope=\"row\"").count(), 1, "nothing was added: {}", list.text);
    let mut operator = Visitor::signed_in(&service, "operator");
    let page = operator.get(&shop.page());
    assert_eq!(operator.post(&add, &page, &[("test", "on"), ("url", &url)]).status, 403);
    let (_, log) = service.terminate();
    assert!(!log.join("").contains("hunter2"));
}

/// As by the API: setting a target takes the role admin, restoring the servers' own settings the role operator.
#[test]
fn an_operator_restores_the_servers_of_a_held_instance_and_a_reader_does_not() {
    let shop = Shop::with_no_server();
    let service = shop.installation.serve(&[]);
    let [mut admin, mut operator, mut reader] =
        ["admin", "operator", "reader"].map(|role| Visitor::signed_in(&service, role));
    let (hold, restore) = (format!("{}/hold", shop.page()), format!("{}/restore", shop.page()));
    let button = "Restore settings";
    let page = operator.get(&shop.page());
    assert!(!page.text.contains(button), "nothing is held: {}", page.text);
    let target = [("hold_level", "hold"), ("hold_below", "8"), ("hold_max_effort", "7"), ("hold_max_hz", "")];
    assert_eq!(operator.post(&hold, &page, &target).status, 403);
    let page = admin.get(&shop.page());
    assert!(admin.submit(&hold, &page, &target).text.contains(button));

    let page = reader.get(&shop.page());
    assert!(!page.text.contains(button), "{}", page.text);
    assert_eq!(reader.post(&restore, &page, &[]).status, 403);
    let page = operator.get(&shop.page());
    assert!(page.text.contains(button), "{}", page.text);
    let restored = operator.submit(&restore, &page, &[]);
    assert!(restored.text.contains("The level is observe."), "{}", restored.text);
    assert!(restored.text.contains("Level observe, below 8 %"), "{}", restored.text);
}
