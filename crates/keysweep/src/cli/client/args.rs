//! Endpoint, project and credentials of a service, from options and environment.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::Path,
    time::Duration,
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

use super::{
    Client, ClientError,
    error::{ACCESS, SECRET, no_key},
};
use crate::{auth::Signer, loopback::is_loopback, model::is_id};

/// Timeout for connecting to the service.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// Options of every command that only calls a service.
#[derive(Debug, Args)]
pub struct ClientArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// Print the response as one JSON object
    #[arg(long, global = true)]
    pub json: bool,
}

/// A service, and how to call it. No option takes an access key: every user of the machine can read a
/// command line.
#[derive(Debug, Args)]
#[command(
    after_help = "Set the access key with --credentials, or with the variables KEYSWEEP_ACCESS_KEY and KEYSWEEP_SECRET_KEY."
)]
pub struct ServiceArgs {
    /// URL of the service: https://host:port
    #[arg(long, value_name = "URL", env = "KEYSWEEP_ENDPOINT", hide_env_values = true, global = true)]
    endpoint: Option<String>,
    /// Name or ID of the project [default: the only project of the access key]
    #[arg(long, value_name = "PROJECT", env = "KEYSWEEP_PROJECT", hide_env_values = true, global = true)]
    project: Option<String>,
    /// Read the access key from this file, in the format of `keysweep admin --json access-key add`
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "KEYSWEEP_CREDENTIALS", hide_env_values = true, global = true)]
    credentials: Option<OsString>,
    /// CA bundle to verify the service, instead of the system's CA certificates (PEM file)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, env = "KEYSWEEP_CA_FILE", hide_env_values = true, global = true)]
    ca_file: Option<OsString>,
}

/// Output of `keysweep admin --json access-key add`.
#[derive(Deserialize)]
struct Credentials {
    access: String,
    secret: String,
}

impl ClientArgs {
    /// As [`ServiceArgs::client`].
    pub fn client(&self) -> Result<Client, ClientError> {
        self.service.client()
    }
}

impl ServiceArgs {
    /// Returns a client. Queries the service for the project ID unless the options give one.
    ///
    /// # Errors
    /// An option is invalid, credentials are missing, or the project cannot be found.
    pub fn client(&self) -> Result<Client, ClientError> {
        let endpoint = endpoint(self.endpoint.as_deref())?;
        let signer = self.signer()?;
        if signer.is_none() && !is_on_loopback(&endpoint) {
            return Err(no_key());
        }
        let mut client = Client { agent: self.agent(&endpoint)?, endpoint, signer, project_id: String::new() };
        client.project_id = match given(&self.project) {
            Some(id) if is_id(id) => id.clone(),
            named => project_id(&client, named.map(String::as_str))?,
        };
        Ok(client)
    }

    /// Returns the access key. Precedence: file, environment.
    fn signer(&self) -> Result<Option<Signer>, ClientError> {
        if let Some(path) = given(&self.credentials).map(Path::new) {
            let text = read("--credentials", path)?;
            // The message of the parser could repeat a secret.
            let found: Credentials = serde_json::from_str(&text).map_err(|_| {
                ClientError::usage(format!(
                    "invalid --credentials {}: expected {{\"access\":…,\"secret\":…}}, as printed by `keysweep admin --json access-key add`",
                    path.display()
                ))
            })?;
            return Ok(Some(Signer { access: found.access, secret: found.secret.into() }));
        }
        let ambient = |name| env::var(name).ok().filter(|value| !value.is_empty());
        match (ambient(ACCESS), ambient(SECRET)) {
            (Some(access), Some(secret)) => Ok(Some(Signer { access, secret: secret.into() })),
            (None, None) => Ok(None),
            (Some(_), None) => Err(ClientError::usage(format!("{ACCESS} is set and {SECRET} is not; set both"))),
            (None, Some(_)) => Err(ClientError::usage(format!("{SECRET} is set and {ACCESS} is not; set both"))),
        }
    }

    fn agent(&self, endpoint: &Url) -> Result<ureq::Agent, ClientError> {
        let mut config = ureq::Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(REQUEST_TIMEOUT))
            .http_status_as_error(false)
            // A signature is valid for one path: a redirected request would fail with a misleading error.
            .max_redirects(0)
            .proxy(if is_on_loopback(endpoint) { None } else { Proxy::try_from_env() })
            .user_agent(concat!("keysweep/", env!("CARGO_PKG_VERSION")));
        if endpoint.scheme() == "https" {
            // An error means that a provider is installed already.
            let _ = ring::default_provider().install_default();
            let roots = RootCerts::new_with_certs(&self.ca_certificates()?);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(config.build().into())
    }

    fn ca_certificates(&self) -> Result<Vec<Certificate<'static>>, ClientError> {
        let Some(path) = given(&self.ca_file).map(Path::new) else {
            let system = rustls_native_certs::load_native_certs().certs;
            return match system.is_empty() {
                true => {
                    Err(ClientError::usage("the system has no CA certificates; provide them with --ca-file".into()))
                }
                false => Ok(system.iter().map(owned).collect()),
            };
        };
        let text = read("--ca-file", path)?;
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
        match found {
            Ok(found) if !found.is_empty() => Ok(found.iter().map(owned).collect()),
            _ => Err(ClientError::usage(format!("invalid --ca-file {}: no PEM certificate found", path.display()))),
        }
    }
}

/// Returns the value of an option; an empty variable counts as not set.
fn given<T: AsRef<OsStr>>(value: &Option<T>) -> Option<&T> {
    value.as_ref().filter(|value| !value.as_ref().is_empty())
}

fn owned(certificate: &CertificateDer<'_>) -> Certificate<'static> {
    Certificate::from_der(certificate).to_owned()
}

fn read(option: &str, path: &Path) -> Result<String, ClientError> {
    fs::read_to_string(path).map_err(|error| ClientError::usage(format!("{option} {}: {error}", path.display())))
}

fn endpoint(given: Option<&str>) -> Result<Url, ClientError> {
    let given = given.filter(|text| !text.is_empty()).ok_or_else(|| {
        ClientError::usage(
            "no endpoint; set KEYSWEEP_ENDPOINT or use --endpoint, for a service on this machine http://127.0.0.1:7080"
                .into(),
        )
    })?;
    // The part before an @ may be a password.
    let shown = given.rsplit('@').next().unwrap_or_default();
    let wrong =
        |why: &str| ClientError::usage(format!("invalid --endpoint {shown:?}: {why}; expected https://host:port"));
    let url: Url = given.parse().map_err(|_| wrong("not a URL"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(wrong("unsupported scheme, use http:// or https://"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("must not contain a user or password, requests are signed with an access key"));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("must not contain a path"));
    }
    Ok(url)
}

fn is_on_loopback(endpoint: &Url) -> bool {
    endpoint.host_str().is_some_and(is_loopback)
}

/// Returns the ID of the project of this name, or of the only project.
fn project_id(client: &Client, name: Option<&str>) -> Result<String, ClientError> {
    let response = client.get("/v3/projects")?;
    let projects: Vec<&Value> = response["projects"].as_array().into_iter().flatten().collect();
    let text = |project: &Value, field: &str| project[field].as_str().unwrap_or_default().to_owned();
    let names = || projects.iter().map(|project| text(project, "name")).collect::<Vec<_>>().join(", ");
    let found = match name {
        Some(name) => projects.iter().find(|project| project["name"] == name),
        None => projects.first().filter(|_| projects.len() == 1),
    };
    match (found, name) {
        (Some(project), _) => Ok(text(project, "id")),
        (None, _) if projects.is_empty() => Err(ClientError::failed(
            "this access key has no project; the operator of the service can grant a role on one".into(),
        )),
        (None, Some(name)) => {
            Err(ClientError::usage(format!("unknown --project {name:?}; projects of this access key: {}", names())))
        }
        (None, None) => Err(ClientError::usage(format!(
            "this access key has several projects; choose one with --project or KEYSWEEP_PROJECT: {}",
            names()
        ))),
    }
}
