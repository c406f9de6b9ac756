//! Where a remote service is and who calls it, as it is typed or stands in the environment.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::Path,
};

use clap::{Args, ValueHint};
use serde::Deserialize;
use serde_json::Value;
use tokio_rustls::rustls::{
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use ureq::{
    Proxy,
    tls::{Certificate, RootCerts, TlsConfig},
};
use url::Url;

use super::{ANSWER_PATIENCE, CONNECT_PATIENCE, Client, Refusal};
use crate::{auth::Signer, fleet::is_id, loopback::is_loopback};

const ACCESS: &str = "KEYSWEEP_ACCESS_KEY";
const SECRET: &str = "KEYSWEEP_SECRET_KEY";

/// Options of every command that calls a remote service. An access key has none of its own: everybody on the machine can
/// read a command line.
#[derive(Debug, Args)]
#[command(
    after_help = "The access key comes from KEYSWEEP_ACCESS_KEY and KEYSWEEP_SECRET_KEY in the environment, or from --credentials."
)]
pub struct ClientArgs {
    /// The service: https://host:port
    #[arg(long, value_name = "URL", env = "KEYSWEEP_ENDPOINT", global = true, help_heading = "Service")]
    endpoint: Option<String>,
    /// Name or id of the project [default: the only one that the access key is good for]
    #[arg(long, value_name = "PROJECT", env = "KEYSWEEP_PROJECT", global = true, help_heading = "Service")]
    project: Option<String>,
    /// Read the access key from this file, as `keysweep admin --json access-key add` prints it
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "KEYSWEEP_CREDENTIALS", global = true, help_heading = "Service")]
    credentials: Option<OsString>,
    /// Trust these authorities instead of the system's (PEM file)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "KEYSWEEP_CA_FILE", global = true, help_heading = "Service")]
    ca_file: Option<OsString>,
    /// Print the service's answer as one JSON object
    #[arg(long, global = true, help_heading = "Service")]
    pub json: bool,
}

/// What `keysweep admin --json access-key add` prints.
#[derive(Deserialize)]
struct Credentials {
    access: String,
    secret: String,
}

impl ClientArgs {
    /// A client of that service. Asks it for the project where none is given, or a name.
    pub fn client(&self) -> Result<Client, Refusal> {
        let endpoint = endpoint(self.endpoint.as_deref())?;
        let signer = self.signer()?;
        if signer.is_none() && !is_here(&endpoint) {
            return Err(no_key());
        }
        let mut client = Client { agent: self.agent(&endpoint)?, endpoint, signer, project_id: String::new() };
        client.project_id = match given(&self.project) {
            Some(id) if is_id(id) => id.clone(),
            named => project_id(&client, named.map(String::as_str))?,
        };
        Ok(client)
    }

    /// A file that was named is stronger than the environment.
    fn signer(&self) -> Result<Option<Signer>, Refusal> {
        if let Some(path) = given(&self.credentials).map(Path::new) {
            let text = read("--credentials", path)?;
            // The parser's own words could repeat a secret.
            let found: Credentials = serde_json::from_str(&text).map_err(|_| {
                Refusal::usage(format!(
                    "--credentials {}: it must hold {{\"access\":…,\"secret\":…}}, as `keysweep admin --json access-key add` prints it",
                    path.display()
                ))
            })?;
            return Ok(Some(Signer { access: found.access, secret: found.secret.into() }));
        }
        let ambient = |name| env::var(name).ok().filter(|value| !value.is_empty());
        match (ambient(ACCESS), ambient(SECRET)) {
            (Some(access), Some(secret)) => Ok(Some(Signer { access, secret: secret.into() })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(Refusal::usage(format!("{ACCESS} is set and {SECRET} is not; give both"))),
            (None, Some(_)) => Err(Refusal::usage(format!("{SECRET} is set and {ACCESS} is not; give both"))),
        }
    }

    fn agent(&self, endpoint: &Url) -> Result<ureq::Agent, Refusal> {
        let mut config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_PATIENCE))
            .timeout_global(Some(ANSWER_PATIENCE))
            .http_status_as_error(false)
            // A signature is good for one path: a redirect could only fail in a way that is harder to understand.
            .max_redirects(0)
            .proxy(if is_here(endpoint) { None } else { Proxy::try_from_env() })
            .user_agent(concat!("keysweep/", env!("CARGO_PKG_VERSION")));
        if endpoint.scheme() == "https" {
            // Fails where it was done before, which is as good.
            let _ = ring::default_provider().install_default();
            let roots = RootCerts::new_with_certs(&self.authorities()?);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(config.build().into())
    }

    fn authorities(&self) -> Result<Vec<Certificate<'static>>, Refusal> {
        let Some(path) = given(&self.ca_file).map(Path::new) else {
            let system = rustls_native_certs::load_native_certs().certs;
            return match system.is_empty() {
                true => {
                    Err(Refusal::usage("the system's list of authorities is empty; name one with --ca-file".into()))
                }
                false => Ok(system.iter().map(owned).collect()),
            };
        };
        let text = read("--ca-file", path)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found.iter().map(owned).collect()),
            _ => Err(Refusal::usage(format!("--ca-file {}: there is no PEM certificate in it", path.display()))),
        }
    }
}

/// A variable that is empty is one that is not set.
fn given<T: AsRef<OsStr>>(value: &Option<T>) -> Option<&T> {
    value.as_ref().filter(|value| !value.as_ref().is_empty())
}

fn owned(certificate: &CertificateDer<'_>) -> Certificate<'static> {
    Certificate::from_der(certificate).to_owned()
}

fn read(option: &str, path: &Path) -> Result<String, Refusal> {
    fs::read_to_string(path).map_err(|error| Refusal::usage(format!("{option} {}: {error}", path.display())))
}

fn endpoint(given: Option<&str>) -> Result<Url, Refusal> {
    let given = given.filter(|text| !text.is_empty()).ok_or_else(|| {
        Refusal::usage("no service is named; set KEYSWEEP_ENDPOINT or give --endpoint https://host:port".into())
    })?;
    // What stands before an @ may be a password.
    let shown = given.rsplit('@').next().unwrap_or_default();
    let wrong = |why: &str| Refusal::usage(format!("--endpoint {shown:?}: {why}; write it as https://host:port"));
    let url: Url = given.parse().map_err(|_| wrong("it is no URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("it must begin with http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it takes no user and password; requests are signed with an access key"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("nothing may stand behind host and port"));
    }
    Ok(url)
}

fn is_here(endpoint: &Url) -> bool {
    endpoint.host_str().is_some_and(is_loopback)
}

/// There are no credentials.
pub(super) fn no_key() -> Refusal {
    Refusal::usage(format!(
        "no access key is given; set {ACCESS} and {SECRET}, or name a file with --credentials (the service's operator makes one with `keysweep admin access-key add`)"
    ))
}

/// The access key cannot stand in a header.
pub(super) fn unusable_key() -> Refusal {
    Refusal::usage(format!("the access key in {ACCESS} or --credentials has characters that no access key has"))
}

/// The project of this name, or the only one.
fn project_id(client: &Client, name: Option<&str>) -> Result<String, Refusal> {
    let answer = client.get("/v3/projects")?;
    let projects: Vec<&Value> = answer["projects"].as_array().into_iter().flatten().collect();
    let text = |project: &Value, field: &str| project[field].as_str().unwrap_or_default().to_owned();
    let names = || projects.iter().map(|project| text(project, "name")).collect::<Vec<_>>().join(", ");
    let found = match name {
        Some(name) => projects.iter().find(|project| project["name"] == name),
        None => projects.first().filter(|_| projects.len() == 1),
    };
    match (found, name) {
        (Some(project), _) => Ok(text(project, "id")),
        (None, _) if projects.is_empty() => Err(Refusal::absent(
            "the service has no project for this access key; its operator can grant a role on one".into(),
        )),
        (None, Some(name)) => Err(Refusal::absent(format!(
            "--project {name:?} is none of those that this access key is good for: {}",
            names()
        ))),
        (None, None) => Err(Refusal::usage(format!(
            "this access key is good for several projects; choose one with --project or KEYSWEEP_PROJECT: {}",
            names()
        ))),
    }
}
