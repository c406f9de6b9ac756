//! What it takes to connect to an instance's nodes besides its URL: TLS, credentials for Sentinels, an address map.

use keysweep_engine::{
    Address, AddressMap, Credentials, Mode, SentinelTls, Target, Tls,
    link::{Dialer, MemoryShare},
};

use super::{InstanceError, Instances};
use crate::{
    model::{Instance, ScanType, Sealed, Stored},
    secrets::{Secret, Vault, field},
};

/// Connection settings of an instance, as an operator gives them; certificates and keys are PEM texts.
#[derive(Debug, Clone, Default)]
pub struct Connection {
    /// User name on the Sentinels.
    pub sentinel_username: Option<String>,
    /// Password on the Sentinels.
    pub sentinel_password: Option<Secret>,
    /// CA certificates to verify the servers with; `None`: the system's.
    pub ca: Option<String>,
    /// Client certificate (mTLS).
    pub certificate: Option<String>,
    /// Key of the client certificate.
    pub key: Option<Secret>,
    /// Name that the servers' certificates must carry; `None`: the host's.
    pub server_name: Option<String>,
    /// `announced=dialled` pairs, separated by commas.
    pub address_map: Option<String>,
    /// Whether connections to the Sentinels are encrypted: `on`, `off`, or `same` as those to the data nodes; `None`: as the
    /// URL says.
    pub sentinel_tls: Option<String>,
}

/// Longest stored texts of an instance, in bytes. Lists and audit entries hold those of all instances of a project.
pub(super) mod longest {
    /// URL: a cluster's with some hundred nodes.
    pub const URL: usize = 8 * 1024;
    /// User name, name of a server.
    pub const NAME: usize = 256;
    /// Password.
    pub const PASSWORD: usize = 4 * 1024;
    /// Address map: a thousand pairs.
    pub const ADDRESS_MAP: usize = 32 * 1024;
    /// Certificates, and a key.
    pub const PEM: usize = 64 * 1024;
}

/// Refuses a text that is too long to be stored. Does not repeat the text, which may be a secret.
pub(super) fn check_length(field: &str, text: Option<&str>, longest: usize) -> Result<(), String> {
    match text.map(str::len).filter(|length| *length > longest) {
        Some(length) => {
            let remedy = match longest {
                longest::PEM => "give only the certificates or the key that this instance needs",
                _ => "shorten it",
            };
            Err(format!("the {field} has {length} bytes and may have {longest}; {remedy}"))
        }
        None => Ok(()),
    }
}

/// Refuses a text that is too long, and control characters. They are in no name or password that a client can type, and a line break in
/// one is a command of its own to a server that is not Redis. Does not repeat the text, which may be a secret.
pub(super) fn check_plain(field: &str, text: Option<&str>, longest: usize) -> Result<(), String> {
    check_length(field, text, longest)?;
    match text.is_some_and(|text| text.chars().any(char::is_control)) {
        true => Err(format!("the {field} has a control character, such as a line break; leave it out")),
        false => Ok(()),
    }
}

impl Connection {
    /// Applies the settings to a target. A setting that the URL's scheme has no use for is an error: ignoring it would
    /// connect in another way than the operator believes.
    pub fn apply(&self, target: &mut Target) -> Result<(), String> {
        let sentinel_password = self.sentinel_password.as_ref().map(Secret::expose);
        for (field, text, longest) in [
            ("Sentinel user", self.sentinel_username.as_deref(), longest::NAME),
            ("Sentinel password", sentinel_password, longest::PASSWORD),
            ("server name", self.server_name.as_deref(), longest::NAME),
            ("address map", self.address_map.as_deref(), longest::ADDRESS_MAP),
        ] {
            check_plain(field, text, longest)?;
        }
        if let Some(setting) = &self.sentinel_tls {
            let encrypted = match setting.as_str() {
                "on" => Some(true),
                "off" => Some(false),
                "same" => None,
                other => return Err(format!("invalid sentinel_tls {other:?}: expected on, off or same")),
            };
            target.set_sentinel_tls(encrypted).map_err(|error| error.to_string())?;
        }
        let wants_tls =
            [&self.ca, &self.certificate, &self.server_name].into_iter().any(Option::is_some) || self.key.is_some();
        if wants_tls && target.tls.is_none() && target.sentinel_tls().is_none() {
            return Err(match target.seed() {
                Address::Unix(_) => "certificates and --sni need TLS, which a unix socket has no use for".into(),
                Address::Tcp { .. } => {
                    "certificates and --sni need a URL with TLS: rediss://, rediss-sentinel:// or rediss-cluster://"
                        .into()
                }
            });
        }
        let settings = || Tls {
            ca: self.ca.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone().map(Into::into),
            server_name: self.server_name.clone(),
        };
        if let Some(tls) = &mut target.tls {
            *tls = settings();
        }
        match &mut target.mode {
            Mode::Sentinel { credentials, tls, .. } => {
                if let SentinelTls::On(tls) = tls {
                    *tls = settings();
                }
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

    /// Applies the settings and reads certificates and key as dialling would, so that an invalid one is reported now and not
    /// when the first scan starts.
    pub fn check(&self, target: &mut Target) -> Result<(), String> {
        self.apply(target)?;
        target.dialer().map(drop).map_err(|error| error.to_string())
    }

    /// Checks the settings against an instance's URL and stores them in the instance, secrets encrypted.
    pub(super) fn store_in(&self, instance: &mut Instance, vault: &Vault) -> Result<(), InstanceError> {
        for (field, text) in [
            ("CA bundle", self.ca.as_deref()),
            ("client certificate", self.certificate.as_deref()),
            ("client key", self.key.as_ref().map(Secret::expose)),
        ] {
            check_length(field, text, longest::PEM).map_err(InstanceError::Connection)?;
        }
        let target = instance.url.value().cloned();
        let mut target = target.map_err(|cause| InstanceError::Url(cause.to_owned()))?;
        self.check(&mut target).map_err(InstanceError::Connection)?;
        if self.sentinel_tls.is_some() {
            instance.url = Stored::read(with_sentinel_tls(instance.url.text(), &target));
        }
        let seal = |field, secret: &Secret| vault.seal(&instance.id, field, secret.expose());
        instance.sentinel_password =
            self.sentinel_password.as_ref().map(|password| seal(field::SENTINEL_PASSWORD, password));
        instance.client_key = self.key.as_ref().map(|key| seal(field::CLIENT_KEY, key));
        instance.sentinel_username = self.sentinel_username.clone();
        instance.ca_pem = self.ca.clone();
        instance.cert_pem = self.certificate.clone();
        instance.server_name = self.server_name.clone();
        instance.address_map = self.address_map.clone().map(Stored::read);
        Ok(())
    }
}

/// Returns a URL with the encryption of a target's Sentinels in its query, where it differs from that of the data nodes. The
/// URL is the only place that stores it.
fn with_sentinel_tls(url: &str, target: &Target) -> String {
    let url = url.split('?').next().unwrap_or(url);
    match &target.mode {
        Mode::Sentinel { tls: SentinelTls::On(_), .. } => format!("{url}?sentinel_tls=on"),
        Mode::Sentinel { tls: SentinelTls::Off, .. } => format!("{url}?sentinel_tls=off"),
        _ => url.to_owned(),
    }
}

impl Instances {
    /// Returns an instance's target and a dialer for its nodes, which connects with or without TLS as the URL says and to allowed
    /// addresses only.
    pub fn connect_to(&self, instance: &Instance) -> Result<(Target, Box<dyn Dialer>), InstanceError> {
        self.connect_within(instance, MemoryShare::new(&self.replies, &instance.project_id))
    }

    /// Does the same for what holds a server or restores its settings: its replies draw on no shared memory, so that no other server
    /// keeps it from bringing settings back.
    pub fn connect_for_upkeep(&self, instance: &Instance) -> Result<(Target, Box<dyn Dialer>), InstanceError> {
        self.connect_within(instance, MemoryShare::default())
    }

    fn connect_within(
        &self,
        instance: &Instance,
        memory: MemoryShare,
    ) -> Result<(Target, Box<dyn Dialer>), InstanceError> {
        let target = self.target(instance)?;
        let dialer = target.dialer_over(self.guarded(memory));
        let dialer = dialer.map_err(|error| InstanceError::Connection(error.to_string()))?;
        Ok((target, dialer))
    }

    /// Returns an instance's target, its secrets decrypted. `Unreadable`: its URL or address map cannot be read.
    pub fn target(&self, instance: &Instance) -> Result<Target, InstanceError> {
        let unreadable = instance
            .unreadable_fields()
            .into_iter()
            .find(|unreadable| matches!(unreadable.field, "url" | "address_map"));
        let mut target = match (unreadable, instance.url.value()) {
            (None, Ok(target)) => target.clone(),
            (Some(field), _) => return Err(InstanceError::Unreadable { name: instance.name.clone(), field }),
            (None, Err(cause)) => return Err(InstanceError::Url(cause.to_owned())),
        };
        target.credentials = self.credentials(instance)?;
        self.connection(instance)?.apply(&mut target).map_err(InstanceError::Connection)?;
        Ok(target)
    }

    /// Returns the credentials for an instance's data nodes, decrypted.
    pub fn credentials(&self, instance: &Instance) -> Result<Credentials, InstanceError> {
        let open = |sealed: &Sealed| self.vault.open_sealed(&instance.id, field::PASSWORD, sealed);
        Ok(Credentials {
            username: instance.username.clone(),
            password: instance.password.as_ref().map(open).transpose()?.map(Into::into),
        })
    }

    /// Returns an instance's connection settings, secrets decrypted.
    fn connection(&self, instance: &Instance) -> Result<Connection, InstanceError> {
        let open = |field, sealed: &Option<Sealed>| {
            sealed.as_ref().map(|sealed| self.vault.open_sealed(&instance.id, field, sealed)).transpose()
        };
        Ok(Connection {
            sentinel_username: instance.sentinel_username.clone(),
            sentinel_password: open(field::SENTINEL_PASSWORD, &instance.sentinel_password)?,
            ca: instance.ca_pem.clone(),
            certificate: instance.cert_pem.clone(),
            key: open(field::CLIENT_KEY, &instance.client_key)?,
            server_name: instance.server_name.clone(),
            address_map: instance.address_map.as_ref().map(Stored::to_string),
            // Stored in the URL.
            sentinel_tls: None,
        })
    }

    /// Refuses an instance with a stored setting that cannot be read and that a scan of this kind depends on.
    pub fn check_readable(&self, instance: &Instance, scan_type: ScanType) -> Result<(), InstanceError> {
        match instance.blocking_field(scan_type) {
            Some(field) => Err(InstanceError::Unreadable { name: instance.name.clone(), field }),
            None => Ok(()),
        }
    }
}
