//! What a token is issued for: a project, the domain or nothing, with a password or in exchange for another token.

use super::*;

/// Adds ada with roles on both projects, and returns their ids.
fn ada_on_two_projects(installation: &Installation) -> [(String, String); 2] {
    let projects = two_projects(installation);
    add_user(installation, "ada", "shop", "operator");
    installation.admin(&["user", "grant", "ada", "--project", "search", "--role", "reader"]);
    projects
}

fn exchange(service: &Service, token: &str, scope: Value) -> Answer {
    let identity = json!({ "methods": ["token"], "token": { "id": token } });
    let body = json!({ "auth": { "identity": identity, "scope": scope } });
    service.send("POST", "/v3/auth/tokens", &[], body.to_string())
}

/// Returns the token of an answer that issued one.
fn issued(answer: &Answer) -> &str {
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    answer.header("x-subject-token").expect("a token")
}

#[test]
fn an_unscoped_token_lists_projects_and_is_exchanged_for_a_token_of_each() {
    let installation = installation!();
    let [(shop, cache), (search, other)] = ada_on_two_projects(&installation);
    let service = installation.serve(&[]);
    let unscoped = sign_in(&service, "ada", PASSWORD, json!("unscoped"));
    for absent in ["project", "domain", "catalog", "roles"] {
        assert_eq!(unscoped.body["token"][absent], Value::Null, "{absent}");
    }
    let unscoped_token = issued(&unscoped);
    for path in ["/v3/auth/projects", "/v3/projects"] {
        let listed = with_token(&service, unscoped_token, "GET", path, "").body;
        let ids: Vec<_> = listed["projects"].as_array().expect("a list").iter().map(|project| &project["id"]).collect();
        assert_eq!(ids, [&json!(search), &json!(shop)], "{path}");
    }
    let instance = format!("/v2/{shop}/instances/{cache}");
    assert_eq!(
        code(&with_token(&service, unscoped_token, "GET", &instance, "")),
        (401, "DCS.1004"),
        "it opens nothing"
    );

    for (project, path, role) in
        [(&shop, &instance, "operator"), (&search, &format!("/v2/{search}/instances/{other}"), "reader")]
    {
        let scoped = exchange(&service, unscoped_token, json!({ "project": { "id": project } }));
        assert_eq!(with_token(&service, issued(&scoped), "GET", path, "").status, 200);
        let body = &scoped.body["token"];
        assert_eq!((&body["project"]["id"], &body["roles"][0]["name"]), (&json!(project), &json!(role)));
        assert_eq!(body["expires_at"], unscoped.body["token"]["expires_at"], "an exchange prolongs nothing");
        assert_eq!(body["methods"], json!(["token", "password"]));
        // From one project to the other, to the same again, and back to none.
        let again = exchange(&service, issued(&scoped), json!({ "project": { "name": "shop" } }));
        assert_eq!(again.body["token"]["project"]["id"], json!(shop));
        let same = exchange(&service, issued(&scoped), Value::Null);
        assert_eq!(same.body["token"]["project"]["id"], json!(project));
        issued(&exchange(&service, issued(&scoped), json!("unscoped")));
    }
    // A token of a project does not become an unscoped one by its first character.
    let scoped = token(&service, "ada", &shop);
    assert_eq!(with_token(&service, &format!("u{scoped}"), "GET", "/v3/projects", "").status, 401);
}

#[test]
fn a_token_that_has_ended_is_not_exchanged_and_its_scope_needs_a_role() {
    let installation = installation!();
    let [(shop, _), (search, _)] = two_projects(&installation);
    add_user(&installation, "ada", "shop", "operator");
    let service = installation.serve(&[]);
    let scope = json!({ "project": { "id": shop } });
    let good = token(&service, "ada", &shop);
    let no_role = exchange(&service, &good, json!({ "project": { "id": search } }));
    assert_eq!(
        (no_role.status, &no_role.body["error"]["message"]),
        (401, &json!("The user has no role on this project."))
    );
    assert_eq!(exchange(&service, "0123", scope.clone()).status, 401);
    let revoked = token(&service, "ada", &shop);
    let headers = [("X-Auth-Token", good.as_str()), ("X-Subject-Token", revoked.as_str())];
    assert_eq!(service.send("DELETE", "/v3/auth/tokens", &headers, "").status, 204);
    assert_eq!(exchange(&service, &revoked, scope.clone()).status, 401, "a revoked token");
    installation.admin(&["user", "disable", "ada"]);
    assert_eq!(exchange(&service, &good, scope.clone()).status, 401, "a disabled user");
    installation.admin(&["user", "enable", "ada"]);
    installation.admin_with_input(&["user", "passwd", "ada", "--password-stdin"], "another password");
    assert_eq!(exchange(&service, &good, scope.clone()).status, 401, "a new password ends all tokens");
    let answer = sign_in(&service, "ada", "another password", scope.clone());
    crate::common::tokens::expire(&installation);
    let expired = exchange(&service, issued(&answer), scope);
    assert_eq!(expired.status, 401);
    assert!(expired.body["error"]["message"].as_str().is_some_and(|text| text.contains("expired")), "{}", expired.body);
}

#[test]
fn a_token_for_the_domain_has_a_catalog_without_projects() {
    let installation = installation!();
    ada_on_two_projects(&installation);
    let service = installation.serve(&["--domain", "acme"]);
    let answer = sign_in(&service, "ada", PASSWORD, json!({ "domain": { "name": "acme" } }));
    issued(&answer);
    let body = &answer.body["token"];
    assert_eq!((&body["domain"]["name"], &body["project"], &body["roles"]), (&json!("acme"), &Value::Null, &json!([])));
    let types: Vec<_> = body["catalog"].as_array().expect("a catalog").iter().map(|entry| &entry["type"]).collect();
    assert_eq!(types, ["identity", "iam"]);
}

#[test]
fn a_user_signs_in_by_id_and_an_unknown_id_is_a_wrong_password() {
    let installation = installation!();
    let [(shop, _), _] = two_projects(&installation);
    add_user(&installation, "ada", "shop", "operator");
    let service = installation.serve(&[]);
    let user = installation.admin(&["user", "list"])[0]["id"].as_str().expect("an id").to_owned();
    let by_id = |id: &str| {
        let user = json!({ "id": id, "password": PASSWORD });
        let identity = json!({ "methods": ["password"], "password": { "user": user } });
        let body = json!({ "auth": { "identity": identity, "scope": { "project": { "id": shop } } } });
        service.send("POST", "/v3/auth/tokens", &[], body.to_string())
    };
    let answer = by_id(&user);
    issued(&answer);
    assert_eq!(
        (&answer.body["token"]["user"]["name"], &answer.body["token"]["user"]["id"]),
        (&json!("ada"), &json!(user))
    );
    for unknown in [OTHER, "ada", ""] {
        let refused = by_id(unknown);
        assert_eq!(
            (refused.status, &refused.body["error"]["message"]),
            (401, &json!("The username or password is wrong."))
        );
    }
}

#[test]
fn a_token_is_shown_to_its_user_alone() {
    let installation = installation!();
    let [(shop, _), _] = two_projects(&installation);
    add_user(&installation, "ada", "shop", "operator");
    add_user(&installation, "bob", "shop", "admin");
    let service = installation.serve(&[]);
    let signed_in = sign_in(&service, "ada", PASSWORD, json!({ "project": { "id": shop } }));
    let (adas, bobs) = (issued(&signed_in), token(&service, "bob", &shop));
    let show = |by: &str, what: &str| {
        service.send("GET", "/v3/auth/tokens", &[("X-Auth-Token", by), ("X-Subject-Token", what)], "")
    };
    let shown = show(adas, adas);
    assert_eq!((shown.status, &shown.body), (200, &signed_in.body));
    assert_eq!((show(&bobs, adas).status, show(adas, "0123").status), (404, 404));
    assert_eq!(with_token(&service, adas, "GET", "/v3/auth/tokens", "").status, 400);
}
