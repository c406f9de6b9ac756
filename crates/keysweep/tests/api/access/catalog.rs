//! Discovery: versions of the identity API, the domain and the service catalog.

use super::*;

#[test]
fn version_documents_are_found_at_every_url_that_clients_are_configured_with() {
    let installation = installation!();
    let service = installation.serve(&[]);
    let base = &service.base;
    for (path, pointer) in [("/", "/versions/values/0"), ("/v3", "/version"), ("/v3/", "/version")] {
        let answer = service.send("GET", path, &[("accept", "application/json")], "");
        assert_eq!(answer.status, 200, "{path}");
        let version = answer.body.pointer(pointer).unwrap_or_else(|| panic!("{path}: {}", answer.body));
        assert_eq!((&version["id"], &version["status"]), (&json!("v3.14"), &json!("stable")));
        assert_eq!(version["links"], json!([{ "rel": "self", "href": format!("{base}/v3/") }]), "{path}");
    }
    let browser = service.send("GET", "/", &[("accept", "text/html,application/xhtml+xml")], "");
    assert_eq!((browser.status, browser.header("location")), (303, Some("/console")));
}

#[test]
fn the_catalog_leads_to_the_host_of_the_request_or_to_the_public_url() {
    let installation = installation!();
    let [(shop, _), (search, _)] = two_projects(&installation);
    add_user(&installation, "ada", "shop", "operator");
    let key = add_key(&installation, "ada");
    let urls = |entries: &Value| {
        let entries = entries.as_array().expect("a catalog").clone();
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        entries.iter().map(|entry| (text(&entry["type"]), text(&entry["endpoints"][0]["url"]))).collect::<Vec<_>>()
    };
    let expected = |base: &str, project: &str| {
        let entry = |kind: &str, url: String| (kind.to_owned(), url);
        let (v3, v2) = (format!("{base}/v3"), format!("{base}/v2/{project}"));
        vec![entry("identity", v3.clone()), entry("iam", v3), entry("dcs", v2)]
    };
    let service = installation.serve(&[]);
    let signed_in = sign_in(&service, "ada", PASSWORD, Value::Null);
    assert_eq!(urls(&signed_in.body["token"]["catalog"]), expected(&service.base, &shop));
    let endpoint = &signed_in.body["token"]["catalog"][2]["endpoints"][0];
    assert_eq!((&endpoint["interface"], &endpoint["region"]), (&json!("public"), &json!("default")));
    let token = signed_in.header("x-subject-token").expect("a token");
    let at = |headers: &[(&str, &str)]| urls(&service.send("GET", "/v3/auth/catalog", headers, "").body["catalog"]);
    assert_eq!(at(&[("x-auth-token", token)]), expected(&service.base, &shop));
    assert_eq!(at(&[("x-auth-token", token), ("host", "keys.example")]), expected("http://keys.example", &shop));
    let behind_tls = [("x-auth-token", token), ("host", "keys.example"), ("x-forwarded-proto", "https")];
    assert_eq!(at(&behind_tls), expected("https://keys.example", &shop));
    let without = service.send(
        "POST",
        "/v3/auth/tokens?nocatalog",
        &[],
        json!({ "auth": {
        "identity": { "methods": ["token"], "token": { "id": token } },
    } })
        .to_string(),
    );
    assert_eq!((without.status, &without.body["token"]["catalog"]), (201, &Value::Null));
    drop(service);

    let service = installation.serve(&["--public-url", "https://keys.example/", "--region", "eu"]);
    // A key of several projects says by X-Project-Id which one is meant, as the SDKs do.
    installation.admin(&["user", "grant", "ada", "--project", "search", "--role", "reader"]);
    let catalog = signed(&service, &key, "GET", "/v3/auth/catalog", "").body;
    assert_eq!(urls(&catalog["catalog"]).len(), 2, "{catalog}");
    let mut headers = key.headers("GET", "/v3/auth/catalog", b"");
    headers.push(("X-Project-Id".into(), search.clone()));
    let catalog = send(&service, "GET", "/v3/auth/catalog", &headers, "").body;
    assert_eq!(urls(&catalog["catalog"]), expected("https://keys.example", &search));
    assert_eq!(catalog["catalog"][0]["endpoints"][0]["region_id"], "eu");
}

#[test]
fn the_domain_has_the_configured_name_which_terraform_compares() {
    let installation = installation!();
    two_projects(&installation);
    installation.admin(&["user", "add", "robot", "--project", "shop", "--role", "operator"]);
    let key = add_key(&installation, "robot");
    for (arguments, name) in [(&[][..], "default"), (&["--domain", "acme"][..], "acme")] {
        let service = installation.serve(arguments);
        let domains = signed(&service, &key, "GET", "/v3/auth/domains", "").body;
        assert_eq!((&domains["domains"][0]["id"], &domains["domains"][0]["name"]), (&json!("default"), &json!(name)));
        assert_eq!((&domains["domains"][0]["enabled"], &domains["domains"][1]), (&json!(true), &Value::Null));
        let count = |query: &str| {
            let answer = signed(&service, &key, "GET", &format!("/v3/auth/domains?name={query}"), "");
            answer.body["domains"].as_array().expect("a list").len()
        };
        assert_eq!((count(name), count("another")), (1, 0));
    }
}
