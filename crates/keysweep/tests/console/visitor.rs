//! A visitor of the console over plain HTTP, and a project to visit.

use keysweep_harness::{Answer, Installation, Service, free_port, id, installation};

pub const PASSWORD: &str = "correct horse battery";

/// A browser without script: it keeps cookies and does not follow redirects by itself.
pub struct Visitor<'a> {
    pub service: &'a Service,
    pub cookies: Vec<(String, String)>,
    /// Value of the Host header, the same for every replica, like behind a proxy.
    pub host: String,
}

impl<'a> Visitor<'a> {
    pub fn new(service: &'a Service) -> Self {
        Self::with(service, Vec::new())
    }

    pub fn with(service: &'a Service, cookies: Vec<(String, String)>) -> Self {
        Self { service, cookies, host: "localhost".into() }
    }

    pub fn signed_in(service: &'a Service, name: &str) -> Self {
        let mut visitor = Self::new(service);
        let answer = visitor.sign_in(name, PASSWORD);
        assert_eq!(answer.status, 303, "{}", answer.text);
        visitor
    }

    pub fn sign_in(&mut self, name: &str, password: &str) -> Answer {
        let page = self.get("/console/sign-in");
        self.post("/console/sign-in", &page, &[("name", name), ("password", password)])
    }

    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let cookie = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ");
        let host = self.host.clone();
        let mut all = vec![
            ("Host", host.as_str()),
            ("Cookie", cookie.as_str()),
            ("Content-Type", "application/x-www-form-urlencoded"),
        ];
        all.extend(headers);
        let answer = self.service.send(method, path, &all, body);
        for (_, line) in answer.headers.iter().filter(|(name, _)| name == "set-cookie") {
            let (name, value) = line.split(';').next().and_then(|pair| pair.split_once('=')).expect("a cookie");
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        answer
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[], "")
    }

    /// Sends a form of a page.
    pub fn post(&mut self, path: &str, page: &Answer, fields: &[(&str, &str)]) -> Answer {
        self.send("POST", path, &[], &form(&token(page), fields))
    }

    /// Sends a form, follows the redirect, and returns the page.
    pub fn submit(&mut self, path: &str, page: &Answer, fields: &[(&str, &str)]) -> Answer {
        let answer = self.post(path, page, fields);
        assert_eq!(answer.status, 303, "{path}: {}", answer.text);
        let location = answer.header("location").expect("a place to go on").to_owned();
        self.get(&location)
    }
}

/// Returns the CSRF token of a page's forms.
pub fn token(page: &Answer) -> String {
    let rest =
        page.text.split("name=\"form_token\" value=\"").nth(1).unwrap_or_else(|| panic!("no form: {}", page.text));
    rest.split('"').next().expect("a value").to_owned()
}

/// Encodes a form with its CSRF token.
pub fn form(token: &str, fields: &[(&str, &str)]) -> String {
    let mut form = url_encoded(&[("form_token", token)]);
    for field in fields {
        form = format!("{form}&{}", url_encoded(&[*field]));
    }
    form
}

fn url_encoded(fields: &[(&str, &str)]) -> String {
    let encode = |text: &str| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric();
        text.bytes()
            .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
            .collect::<String>()
    };
    fields.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect::<Vec<_>>().join("&")
}

/// A project with one instance and a user of each role.
pub struct Shop {
    pub installation: Installation,
    pub project: String,
    pub instance: String,
}

impl Shop {
    pub fn new(url: &str) -> Self {
        let installation = installation!();
        let project = id(&installation.admin(&["project", "add", "shop"]));
        let instance = id(&installation.admin(&["instance", "add", "cache", url, "--project", "shop"]));
        for role in ["reader", "operator", "admin"] {
            installation.add_user(role, "shop", role, PASSWORD);
        }
        Self { installation, project, instance }
    }

    pub fn with_no_server() -> Self {
        Self::new(&format!("redis://127.0.0.1:{}", free_port()))
    }

    pub fn page(&self) -> String {
        format!("/console/{}/instances/{}", self.project, self.instance)
    }
}
