//! The audit trail in the native API: filters, and the export.

use keysweep_harness::{free_port, id};
use serde_json::json;

use crate::own_api::{actions, error, installation, post};

#[test]
fn the_audit_trail_is_filtered_by_time_user_and_kind_and_exported_with_the_same_filters() {
    let (installation, base) = installation();
    let service = installation.serve(&["--no-auth"]);
    let url = format!("redis://127.0.0.1:{}", free_port());
    let added = post(&service, &format!("{base}/instances"), &json!({ "name": "=carts, \"old\"", "url": url }));
    assert_eq!(added.status, 201, "{:?}", added.body);
    let read = |query: &str| service.get(&format!("{base}/audit?{query}"));
    assert_eq!(actions(&read("kind=instance")), ["instance.add"]);
    assert_eq!(actions(&read("kind=inst")), [""; 0], "a kind is a whole word");
    assert_eq!(actions(&read("actor=(command%20line)")), ["project.add"]);
    assert_eq!(actions(&read("since=2099-01-01T00:00:00Z")), [""; 0]);
    assert_eq!(actions(&read("since=2000-01-01T00:00:00Z&limit=1")), ["instance.add"]);

    let export = |query: &str| service.request("GET", &format!("{base}/audit/export?{query}"));
    let whole = export("");
    assert_eq!((whole.status, whole.header("content-type")), (200, Some("text/csv; charset=utf-8")));
    assert!(whole.header("content-disposition").is_some_and(|value| value.contains("keysweep-audit.csv")), "{whole:?}");
    let lines: Vec<&str> = whole.text.lines().collect();
    assert_eq!((lines.len(), lines[0]), (3, "seq,happened_at,actor,action,subject,detail"), "{}", whole.text);
    let instance = id(&added.body);
    assert!(lines[1].contains(&format!(",,instance.add,{instance},")), "{}", lines[1]);
    assert!(lines[1].contains("name==carts, \"\"old\"\""), "a quoted name stays one field: {}", lines[1]);
    assert!(lines[2].contains(",(command line),project.add,"), "{}", lines[2]);
    assert_eq!(export("kind=project").text.lines().count(), 2);
    assert_eq!(export("since=2099-01-01T00:00:00Z").text, format!("{}\n", lines[0]));

    for (query, words) in [
        ("since=24h", "invalid parameter since \"24h\": write a time such as"),
        ("before=x", "invalid parameter before \"x\": write the seq of an entry"),
        ("limit=20001", "invalid parameter limit \"20001\": write a number from 1 to 20000"),
    ] {
        let answer = export(query);
        assert_eq!(error(&answer), (400, "invalid"), "{query}");
        assert!(answer.body.to_string().contains(&words.replace('"', "\\\"")), "{query}: {}", answer.body);
    }
}
