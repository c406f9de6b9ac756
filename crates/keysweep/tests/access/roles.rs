//! The table role × operation: every operation that the OpenAPI document has on a project, tried by each role, and the same
//! table in docs/api.md.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;

const ROLES: [&str; 3] = ["reader", "operator", "admin"];

/// An operation on a project.
struct Operation {
    method: &'static str,
    /// As it stands in the OpenAPI document.
    path: &'static str,
    /// The least role that may do it.
    least: &'static str,
    body: String,
    /// What who may is answered with, here, where no server stands behind the instance.
    done: u16,
}

/// Where every operation stands, in the order in which they are tried and shown.
fn operations() -> Vec<Operation> {
    const V2: &str = "/v2/{project_id}/instances/{instance_id}/scan-expire-keys/autoscan-config";
    let reads = [
        "/v2/{project_id}/instances",
        "/v2/{project_id}/instances/{instance_id}",
        "/v2/{project_id}/instances/{instance_id}/nodes",
        "/v2/{project_id}/instance/{instance_id}/groups",
        "/v2/{project_id}/instances/{instance_id}/auto-expire/histories",
        V2,
        "/api/v1/projects/{project_id}/instances",
        "/api/v1/projects/{project_id}/instances/{instance_id}",
        "/api/v1/projects/{project_id}/tasks/{task_id}",
        "/api/v1/projects/{project_id}/tasks/{task_id}/events",
    ];
    let new = json!({ "name": "new", "url": format!("redis://127.0.0.1:{}", free_port()) }).to_string();
    let own = "/api/v1/projects/{project_id}/instances/{instance_id}";
    let changes = [
        ("POST", "/v2/{project_id}/instances/{instance_id}/scan-expire-keys-task", "operator", "", 200),
        ("POST", "/v2/{project_id}/instances/{instance_id}/auto-expire/scan", "operator", "", 200),
        ("PUT", V2, "operator", OFF, 200),
        ("POST", "/api/v1/projects/{project_id}/tasks/{task_id}/cancel", "operator", "", 200),
        ("POST", "/api/v1/projects/{project_id}/instances/{instance_id}/estimate", "operator", "", 409),
        ("POST", "/api/v1/projects/{project_id}/instances", "admin", new.as_str(), 201),
        ("PATCH", own, "admin", "{}", 200),
        ("POST", "/api/v1/projects/{project_id}/instances/{instance_id}/pause", "admin", "", 200),
        ("POST", "/api/v1/projects/{project_id}/instances/{instance_id}/resume", "admin", "", 200),
        ("POST", "/api/v1/projects/{project_id}/instances/{instance_id}/test", "admin", "", 200),
        ("DELETE", own, "admin", "", 204),
        ("GET", "/api/v1/projects/{project_id}/audit", "admin", "", 200),
    ];
    let reads = reads.into_iter().map(|path| ("GET", path, "reader", "", 200));
    let all = reads.chain(changes).map(|(method, path, least, body, done)| {
        let body = body.to_owned();
        Operation { method, path, least, body, done }
    });
    all.collect()
}

/// What the placeholders of a path stand for.
#[derive(Clone)]
struct Ids {
    project: String,
    instance: String,
    /// An instance without tasks, which can be removed.
    spare: String,
    task: String,
}

impl Ids {
    fn fill(&self, operation: &Operation) -> String {
        let instance = if operation.method == "DELETE" { &self.spare } else { &self.instance };
        let path = operation.path.replace("{project_id}", &self.project);
        path.replace("{instance_id}", instance).replace("{task_id}", &self.task)
    }
}

/// Two projects, each with a user of every role and a task.
fn two_peopled_projects(installation: &Installation) -> ([Ids; 2], Service) {
    let projects = two_projects(installation);
    for (number, (project, _)) in projects.iter().enumerate() {
        for role in ROLES {
            add_user(installation, &format!("{role}{number}"), project, role);
        }
    }
    let service = installation.serve(&[]);
    let mut number = 0;
    let ids = projects.map(|(project, instance)| {
        let operator = token(&service, &format!("operator{number}"), &project);
        number += 1;
        let create = format!("/v2/{project}/instances/{instance}/scan-expire-keys-task");
        let task = with_token(&service, &operator, "POST", &create, "").body["id"].as_str().expect("an id").to_owned();
        let url = format!("redis://127.0.0.1:{}", free_port());
        let spare = installation.register_another(&project, "spare", &url, &[]);
        Ids { project, instance, spare, task }
    });
    (ids, service)
}

#[test]
fn each_role_may_do_what_the_table_says_and_nothing_more() {
    let installation = installation();
    let ([ours, theirs], service) = two_peopled_projects(&installation);
    let nothing = || OTHER.to_owned();
    let nowhere = Ids { project: nothing(), instance: nothing(), spare: nothing(), task: nothing() };
    let across = Ids { project: ours.project.clone(), ..theirs.clone() };
    let absent = Ids { project: ours.project.clone(), ..nowhere.clone() };
    for (rank, role) in ROLES.into_iter().enumerate() {
        let token = token(&service, &format!("{role}0"), &ours.project);
        for operation in operations() {
            let Operation { method, path: template, least, body, done } = &operation;
            let send = |ids: &Ids| with_token(&service, &token, method, &ids.fill(&operation), body);
            let may = ROLES.iter().position(|known| known == least).expect("a role") <= rank;

            let answers = [&theirs, &nowhere].map(send);
            assert_eq!(answers[0].status, 401, "{role} {method} {template}");
            assert_eq!(answers[0].body, answers[1].body, "another's project looks as if it were not there");
            if across.fill(&operation) != absent.fill(&operation) {
                let answers = [&across, &absent].map(send);
                assert_eq!(answers[0].status, if may { 404 } else { 403 }, "{role} {method} {template}");
                assert_eq!(answers[0].body, answers[1].body, "another's instance looks as if it were not there");
            }

            let answer = send(&ours);
            let expected = if may { *done } else { 403 };
            assert_eq!(answer.status, expected, "{role} {method} {template}: {:?}", answer.body);
            if !may && template.starts_with("/v2") {
                assert_eq!(answer.body["error_code"], "DCS.2003");
            }
        }
    }
}

#[test]
fn the_table_holds_every_operation_on_a_project_that_the_openapi_document_has() {
    let document = serde_json::to_value(keysweep::openapi::document()).expect("JSON");
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().expect("paths") {
        for method in item.as_object().expect("operations").keys().filter(|_| path.contains("{project_id}")) {
            documented.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    let known = operations().iter().map(|operation| format!("{} {}", operation.method, operation.path)).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_table_in_the_documents_is_the_one_that_is_tried() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api.md");
    let page = fs::read_to_string(page).expect("docs/api.md");
    let mut table = vec!["| operation | reader | operator | admin |".to_owned(), "|---|---|---|---|".to_owned()];
    for Operation { method, path, least, .. } in operations() {
        let first = ROLES.iter().position(|known| *known == least).expect("a role");
        let cells = (0..ROLES.len()).map(|rank| if rank < first { " |" } else { " yes |" });
        table.push(format!("| `{method} {path}` |{}", cells.collect::<String>()));
    }
    let shown: Vec<&str> =
        page.lines().skip_while(|line| *line != table[0]).take_while(|line| !line.is_empty()).collect();
    assert_eq!(shown, table, "the table of roles in docs/api.md should be:\n{}", table.join("\n"));
}
