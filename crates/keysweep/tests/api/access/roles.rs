//! The table of roles and operations: every operation of the OpenAPI document on a project, called with each role, and the
//! same table in docs/authentication.md.

use std::{collections::BTreeSet, fs, path::Path};

use super::*;

const ROLES: [&str; 3] = ["reader", "operator", "admin"];

/// An operation on a project.
struct Operation {
    method: &'static str,
    /// Path in the OpenAPI document.
    path: &'static str,
    /// The lowest role that suffices.
    least: &'static str,
    body: String,
    /// Status of the answer to a role that suffices. The instances of this test have no servers.
    done: u16,
}

/// Returns every operation, in the order of the calls and of the documented table.
fn operations() -> Vec<Operation> {
    const V2: &str = "/v2/{project_id}/instances/{instance_id}/scan-expire-keys/autoscan-config";
    let reads = [
        "/v2/{project_id}/instances",
        "/v2/{project_id}/instances/{instance_id}",
        "/v2/{project_id}/instances/{instance_id}/nodes",
        "/v2/{project_id}/instance/{instance_id}/groups",
        "/v2/{project_id}/instances/{instance_id}/configs",
        "/v2/{project_id}/instance/{instance_id}/whitelist",
        "/v2/{project_id}/instances/{instance_id}/auto-expire/histories",
        V2,
        "/api/v1/projects/{project_id}/instances",
        "/api/v1/projects/{project_id}/instances/{instance_id}",
        "/api/v1/projects/{project_id}/instances/{instance_id}/estimates",
        "/api/v1/projects/{project_id}/instances/{instance_id}/auto-scan",
        "/api/v1/projects/{project_id}/survey/{survey_id}",
        "/api/v1/projects/{project_id}/instances/{instance_id}/hold",
        "/api/v1/projects/{project_id}/tasks",
        "/api/v1/projects/{project_id}/tasks/{task_id}",
        "/api/v1/projects/{project_id}/tasks/{task_id}/events",
    ];
    let new = json!({ "name": "new", "url": format!("redis://127.0.0.1:{}", free_port()) }).to_string();
    let own = "/api/v1/projects/{project_id}/instances/{instance_id}";
    let changes = [
        ("POST", "/v2/{project_id}/instances/{instance_id}/scan-expire-keys-task", "operator", "", 200),
        ("POST", "/v2/{project_id}/instances/{instance_id}/auto-expire/scan", "operator", "", 200),
        ("PUT", V2, "operator", OFF, 200),
        ("PATCH", "/api/v1/projects/{project_id}/instances/{instance_id}/auto-scan", "operator", "{}", 200),
        ("POST", "/api/v1/projects/{project_id}/tasks/{task_id}/cancel", "operator", "", 200),
        ("POST", "/api/v1/projects/{project_id}/instances/{instance_id}/estimate", "operator", "", 409),
        ("POST", "/api/v1/projects/{project_id}/survey", "operator", "", 201),
        ("POST", "/api/v1/projects/{project_id}/instances/{instance_id}/hold/restore", "operator", "", 200),
        ("POST", "/api/v1/projects/{project_id}/instances", "admin", new.as_str(), 201),
        ("POST", "/api/v1/projects/{project_id}/inventory", "admin", r#"{"instances":[],"dry_run":true}"#, 200),
        ("PATCH", own, "admin", "{}", 200),
        ("PUT", "/api/v1/projects/{project_id}/instances/{instance_id}/hold", "admin", r#"{"level":"advise"}"#, 200),
        ("POST", "/api/v1/projects/{project_id}/instances/{instance_id}/pause", "admin", "", 200),
        ("POST", "/api/v1/projects/{project_id}/instances/{instance_id}/resume", "admin", "", 200),
        ("POST", "/api/v1/projects/{project_id}/instances/{instance_id}/test", "admin", "", 200),
        ("DELETE", own, "admin", "", 204),
        ("GET", "/api/v1/projects/{project_id}/audit", "admin", "", 200),
        ("GET", "/api/v1/projects/{project_id}/audit/export", "admin", "", 200),
    ];
    let reads = reads.into_iter().map(|path| ("GET", path, "reader", "", 200));
    let all = reads.chain(changes).map(|(method, path, least, body, done)| {
        let body = body.to_owned();
        Operation { method, path, least, body, done }
    });
    all.collect()
}

/// Values of the placeholders in a path.
#[derive(Clone)]
struct Ids {
    project: String,
    instance: String,
    /// An instance without tasks, which can be removed.
    spare: String,
    task: String,
    survey: String,
}

impl Ids {
    fn fill(&self, operation: &Operation) -> String {
        let instance = if operation.method == "DELETE" { &self.spare } else { &self.instance };
        let path = operation.path.replace("{project_id}", &self.project);
        path.replace("{instance_id}", instance).replace("{task_id}", &self.task).replace("{survey_id}", &self.survey)
    }
}

/// Adds two projects, each with a user of every role and a task.
fn two_projects_with_users(installation: &Installation) -> ([Ids; 2], Service) {
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
        let task = id(&with_token(&service, &operator, "POST", &scan_path(&project, &instance), "").body);
        let url = format!("redis://127.0.0.1:{}", free_port());
        let spare = installation.register_another(&project, "spare", &url, &[]);
        let survey =
            id(&with_token(&service, &operator, "POST", &format!("/api/v1/projects/{project}/survey"), "").body);
        Ids { project, instance, spare, task, survey }
    });
    (ids, service)
}

#[test]
fn each_role_has_exactly_the_operations_of_the_table() {
    let installation = installation!();
    let ([ours, theirs], service) = two_projects_with_users(&installation);
    let nothing = || OTHER.to_owned();
    let nowhere = Ids { project: nothing(), instance: nothing(), spare: nothing(), task: nothing(), survey: nothing() };
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
            assert_eq!(answers[0].body, answers[1].body, "another project looks like one that does not exist");
            if across.fill(&operation) != absent.fill(&operation) {
                let answers = [&across, &absent].map(send);
                assert_eq!(answers[0].status, if may { 404 } else { 403 }, "{role} {method} {template}");
                assert_eq!(
                    answers[0].body, answers[1].body,
                    "another project's instance looks like one that does not exist"
                );
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
fn the_table_has_every_operation_of_the_openapi_document_on_a_project() {
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
fn the_table_in_the_documents_is_the_tested_one() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/authentication.md");
    let page = fs::read_to_string(page).expect("docs/authentication.md");
    let mut table = vec!["| operation | reader | operator | admin |".to_owned(), "|---|---|---|---|".to_owned()];
    for Operation { method, path, least, .. } in operations() {
        let first = ROLES.iter().position(|known| *known == least).expect("a role");
        let cells = (0..ROLES.len()).map(|rank| if rank < first { " |" } else { " yes |" });
        table.push(format!("| `{method} {path}` |{}", cells.collect::<String>()));
    }
    let shown: Vec<&str> =
        page.lines().skip_while(|line| *line != table[0]).take_while(|line| !line.is_empty()).collect();
    assert_eq!(shown, table, "the table of roles in docs/authentication.md should be:\n{}", table.join("\n"));
}
