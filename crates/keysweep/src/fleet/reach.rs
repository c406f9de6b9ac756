//! What it takes to reach an instance's nodes beside its URL: TLS, Sentinels, addresses that are announced otherwise.

use keysweep_engine::{AddressMap, Credentials, Mode, Target, Tls};

use super::{Fleet, FleetError, Secret, vault::Vault};
use crate::model::{Instance, Sealed};

/// The fields of an instance that are sealed.
pub(super) const SENTINEL_PASSWORD: &str = "sentinel_password";
pub(super) const CLIENT_KEY: &str = "client_key";

/// How to reach an instance's nodes, as an operator gives it; certificates and keys are PEM texts.
#[derive(Debug, Clone, Default)]
pub struct Reach {
    /// User name on the Sentinels.
    pub sentinel_username: Option<String>,
    /// Password on the Sentinels.
    pub sentinel_password: Option<Secret>,
    /// Certificates of the authorities to trust instead of the system's.
    pub ca: Option<String>,
    /// Our own certificate.
    pub certificate: Option<String>,
    /// Its key.
    pub key: Option<Secret>,
    /// The name that the servers' certificates must carry, where it is not the host's.
    pub server_name: Option<String>,
    /// `announced=dialled` pairs, separated by commas.
    pub address_map: Option<String>,
}

impl Reach {
    /// Makes a target reach its nodes like this. An option that the URL's scheme has no use for is an error: who gives it
    /// believes in something that is not so.
    pub fn apply(&self, target: &mut Target) -> Result<(), String> {
        let wants_tls =
            [&self.ca, &self.certificate, &self.server_name].into_iter().any(Option::is_some) || self.key.is_some();
        match &mut target.tls {
            Some(tls) => {
                *tls = Tls {
                    ca: self.ca.clone(),
                    certificate: self.certificate.clone(),
                    key: self.key.clone().map(Into::into),
                    server_name: self.server_name.clone(),
                }
            }
            None if wants_tls => {
                return Err(
                    "certificates and --sni need a URL with TLS: rediss://, rediss-sentinel:// or rediss-cluster://"
                        .into(),
                );
            }
            None => {}
        }
        match &mut target.mode {
            Mode::Sentinel { credentials, .. } => {
                let password = self.sentinel_password.clone().map(Into::into);
                *credentials = Credentials { username: self.sentinel_username.clone(), password };
                if credentials.username.is_some() && credentials.password.is_none() {
                    return Err("a Sentinel user needs a password; give it with --sentinel-password-file".into());
                }
            }
            _ if self.sentinel_username.is_some() || self.sentinel_password.is_some() => {
                return Err("a Sentinel user or password needs a redis-sentinel:// URL".into());
            }
            _ => {}
        }
        if let Some(map) = &self.address_map {
            target.address_map = map.parse::<AddressMap>().map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    /// The same, and reads certificates and key as dialling would: what cannot be used is said now and not when the first sweep
    /// begins.
    pub fn try_on(&self, target: &mut Target) -> Result<(), String> {
        self.apply(target)?;
        target.dialer().map(drop).map_err(|error| error.to_string())
    }

    /// Checks it against the URL and keeps it with the instance, its secrets sealed.
    pub(super) fn keep(&self, instance: &mut Instance, vault: &Vault) -> Result<(), FleetError> {
        let mut target: Target =
            instance.url.parse().map_err(|error: keysweep_engine::TargetError| FleetError::Url(error.to_string()))?;
        self.try_on(&mut target).map_err(FleetError::Reach)?;
        let seal = |field, secret: &Secret| vault.seal(&instance.id, field, secret.expose());
        instance.sentinel_password = self.sentinel_password.as_ref().map(|password| seal(SENTINEL_PASSWORD, password));
        instance.client_key = self.key.as_ref().map(|key| seal(CLIENT_KEY, key));
        instance.sentinel_username = self.sentinel_username.clone();
        instance.ca_pem = self.ca.clone();
        instance.cert_pem = self.certificate.clone();
        instance.server_name = self.server_name.clone();
        instance.address_map = self.address_map.clone();
        Ok(())
    }
}

impl Fleet {
    /// How to reach an instance's nodes, with its secrets opened.
    pub(super) fn reach(&self, instance: &Instance) -> Result<Reach, FleetError> {
        let open = |field, sealed: &Option<Sealed>| {
            sealed.as_ref().map(|sealed| self.vault.open_sealed(&instance.id, field, sealed)).transpose()
        };
        Ok(Reach {
            sentinel_username: instance.sentinel_username.clone(),
            sentinel_password: open(SENTINEL_PASSWORD, &instance.sentinel_password)?,
            ca: instance.ca_pem.clone(),
            certificate: instance.cert_pem.clone(),
            key: open(CLIENT_KEY, &instance.client_key)?,
            server_name: instance.server_name.clone(),
            address_map: instance.address_map.clone(),
        })
    }
}
