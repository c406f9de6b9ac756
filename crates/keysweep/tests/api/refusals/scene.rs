//! Services and users that provoke every error of the DCS API, with the request that provokes each.

use keysweep_harness::{Installation, Service, free_port, id, installation};
use serde_json::{Value, json};

use crate::common::{self, tokens, web::Web};

const OTHER: &str = "0123456789abcdef0123456789abcdef";
const PASSWORD: &str = "correct horse battery";

/// Credentials of a request.
#[derive(Debug, Clone)]
pub enum Caller {
    Nobody,
    Token(String),
    Key { access: String, secret: String },
}

/// A row of the error table: a request and the error that answers it.
pub struct Refused<'s> {
    /// The name of the error in dcs/error.rs.
    pub error: &'static str,
    pub service: &'s Service,
    pub caller: Caller,
    pub method: &'static str,
    /// The path below `/v2/`.
    pub path: String,
    pub headers: Vec<(&'static str, &'static str)>,
    pub body: String,
    pub status: u16,
    pub code: &'static str,
    pub message: &'static str,
}

/// A service with users and instances in several states, and one without authentication whose database is broken.
pub struct Scene {
    service: Service,
    unprotected: Service,
    project: String,
    other_project: String,
    instance: String,
    paused: String,
    no_redis: String,
    operator: Caller,
    reader: Caller,
    wrong: Caller,
    expired: Caller,
    _installations: [Installation; 2],
}

fn key_of(installation: &Installation, role: &str, project: &str) -> Caller {
    installation.add_user(role, project, role, PASSWORD);
    let key = installation.admin(&["access-key", "add", "--user", role]);
    let text = |name: &str| key[name].as_str().expect("a text").to_owned();
    Caller::Key { access: text("access"), secret: text("secret") }
}

impl Scene {
    pub fn new() -> Self {
        let kept = installation!();
        let project = id(&kept.admin(&["project", "add", "shop"]));
        let other_project = id(&kept.admin(&["project", "add", "search"]));
        let nowhere = || format!("redis://127.0.0.1:{}", free_port());
        let add = |name: &str, url: &str| kept.register_another(&project, name, url, &[]);
        let (instance, paused) = (add("cache", &nowhere()), add("paused", &nowhere()));
        kept.admin(&["instance", "pause", "paused", "--project", &project]);
        let no_redis = add("no-redis", &Web::start().url());
        let (operator, reader) = (key_of(&kept, "operator", &project), key_of(&kept, "reader", &project));
        let wrong = key_of(&kept, "admin", &project);
        let Caller::Key { access, .. } = wrong else { unreachable!("it is a key") };
        let wrong = Caller::Key { access, secret: "another secret".into() };
        let service = kept.serve(&[]);
        let expired = Caller::Token(expired_token(&kept, &service, &project));

        let broken = installation!();
        let unprotected = broken.serve(&["--no-auth"]);
        common::break_database(&broken);
        Self {
            service,
            unprotected,
            project,
            other_project,
            instance,
            paused,
            no_redis,
            operator,
            reader,
            wrong,
            expired,
            _installations: [kept, broken],
        }
    }

    fn refused(&self, error: &'static str, status: u16, code: &'static str, message: &'static str) -> Refused<'_> {
        Refused {
            error,
            service: &self.service,
            caller: self.operator.clone(),
            method: "GET",
            path: format!("{}/instances/{}", self.project, self.instance),
            headers: Vec::new(),
            body: String::new(),
            status,
            code,
            message,
        }
    }

    /// Errors that depend on the caller.
    fn callers(&self) -> Vec<Refused<'_>> {
        let project = &self.project;
        let create = |instance: &str| format!("{project}/instances/{instance}/scan-expire-keys-task");
        let signature = "Incorrect IAM authentication information: verify aksk signature fail";
        vec![
            Refused {
                caller: Caller::Token("0123".into()),
                ..self.refused("Token", 401, "DCS.1001", "Invalid token.")
            },
            Refused { caller: self.expired.clone(), ..self.refused("TokenExpired", 401, "DCS.1002", "Token expired.") },
            Refused { caller: Caller::Nobody, ..self.refused("NoToken", 401, "DCS.1003", "No token in the request.") },
            Refused { caller: self.wrong.clone(), ..self.refused("Signature", 401, "APIGW.0301", signature) },
            Refused {
                path: format!("{}/instances", self.other_project),
                ..self.refused("OtherProject", 401, "DCS.1004", "Project ID does not match the token.")
            },
            Refused {
                caller: self.reader.clone(),
                method: "POST",
                path: create(&self.instance),
                ..self.refused(
                    "Forbidden",
                    403,
                    "DCS.2003",
                    "This role does not have the permission to perform this operation.",
                )
            },
            Refused {
                service: &self.unprotected,
                caller: Caller::Nobody,
                headers: vec![("Origin", "https://pages.example")],
                ..self.refused("NotLocal", 403, "DCS.2003", keysweep::auth::NOT_LOCAL)
            },
        ]
    }

    /// Errors of paths and queries.
    fn paths(&self) -> Vec<Refused<'_>> {
        let project = &self.project;
        let create = |instance: &str| format!("{project}/instances/{instance}/scan-expire-keys-task");
        vec![
            Refused {
                path: "p/instances".into(),
                ..self.refused("ProjectFormat", 400, "DCS.4002", "Invalid project ID format.")
            },
            Refused {
                path: format!("{project}/instances/i"),
                ..self.refused("InstanceFormat", 400, "DCS.4061", "Invalid instance ID format.")
            },
            Refused {
                path: format!("{project}/instances/{OTHER}"),
                ..self.refused("NoInstance", 404, "DCS.3022", "This DCS instance does not exist.")
            },
            Refused {
                path: format!("{project}/nothing"),
                ..self.refused("NoUrl", 404, "DCS.4001", "The requested URL does not exist.")
            },
            Refused {
                method: "DELETE",
                path: create(&self.instance),
                ..self.refused("NoMethod", 405, "DCS.5001", "This request method is not allowed.")
            },
            Refused {
                path: format!("{project}/instances/{}/auto-expire/histories?limit=1001", self.instance),
                ..self.refused("Parameter", 400, "DCS.4800", "Invalid limit in the request.")
            },
            Refused {
                method: "POST",
                path: create(&self.no_redis),
                ..self.refused("Unsupported", 400, "DCS.4818", "Do not support auto expire scan.")
            },
            Refused {
                method: "POST",
                path: create(&self.paused),
                ..self.refused("NotRunning", 400, "DCS.4049", "The instance status is not running.")
            },
            Refused {
                service: &self.unprotected,
                ..self.refused("Internal", 500, "DCS.5000", "Internal service error.")
            },
        ]
    }

    /// Errors of bodies.
    fn bodies(&self) -> Vec<Refused<'_>> {
        let put = |body: String, refused| Refused {
            method: "PUT",
            path: format!("{}/instances/{}/scan-expire-keys/autoscan-config", self.project, self.instance),
            body,
            ..refused
        };
        let with = |name: &str, value: Value| {
            let mut config = json!({
                "enable_auto_scan": true, "first_scan_at": "2999-01-01T00:00:00.000Z", "interval": 86400,
                "timeout": 172800, "scan_keys_count": 1000,
            });
            config[name] = value;
            config.to_string()
        };
        let first = "The first_scan_at parameter is invalid. Its must be ISO format utc date-time. The time must be later than the current time.";
        let interval = "The interval parameter is invalid. must Greater than or equal to 0.";
        let timeout = "The timeout parameter is invalid. Its must Greater than or equal to interval * 2, if interval is 0, timeout must Greater than 1 second.";
        let count = "The scan_keys_count parameter is invalid. Its must Greater than or equal to 10, and Less than or equal to 100000.";
        let body = "The message body contains invalid characters or is not in JSON format.";
        vec![
            put(String::new(), self.refused("EmptyBody", 400, "DCS.4004", "Empty request body.")),
            put("{".into(), self.refused("Body", 400, "DCS.4005", body)),
            put(
                " ".repeat(1024 * 1024 + 1),
                self.refused("TooLarge", 413, "DCS.4005", "The message body is larger than 1 MiB."),
            ),
            put(
                with("first_scan_at", "2020-01-01T00:00:00.000Z".into()),
                self.refused("FirstScanAt", 400, "DCS.4819", first),
            ),
            put(with("interval", json!(-1)), self.refused("Interval", 400, "DCS.4820", interval)),
            put(with("timeout", json!(172_799)), self.refused("Timeout", 400, "DCS.4821", timeout)),
            put(with("scan_keys_count", json!(9)), self.refused("ScanKeysCount", 400, "DCS.4822", count)),
        ]
    }

    /// One request for each row of the error table.
    pub fn table(&self) -> Vec<Refused<'_>> {
        [self.callers(), self.paths(), self.bodies()].into_iter().flatten().collect()
    }
}

fn expired_token(installation: &Installation, service: &Service, project: &str) -> String {
    let body = json!({ "auth": {
        "identity": { "methods": ["password"], "password": { "user": {
            "name": "operator", "password": PASSWORD, "domain": { "name": "any" },
        } } },
        "scope": { "project": { "id": project } },
    } });
    let answer = service.send("POST", "/v3/auth/tokens", &[], body.to_string());
    assert_eq!(answer.status, 201, "{:?}", answer.body);
    tokens::expire(installation);
    answer.header("x-subject-token").expect("a token").to_owned()
}
