//! A certificate authority and its certificates, for servers with TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use tempfile::TempDir;

/// A certificate authority with a folder for the certificates that it issues.
#[derive(Debug)]
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// A certificate with its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// Creates an authority.
    ///
    /// # Panics
    /// If no temporary folder can be created.
    #[must_use]
    pub fn new() -> Self {
        Self::with_names(&[])
    }

    /// Creates an authority whose own certificate carries these names and addresses, as `openssl req -x509` does, and returns that
    /// certificate as well.
    ///
    /// # Panics
    /// If a name is invalid.
    #[must_use]
    pub fn that_serves(names: &[&str]) -> (Self, Issued) {
        let authority = Self::with_names(names);
        let own = Issued { certificate: authority.file(), key: authority.directory.path().join("ca-key.pem") };
        write(&own.key, &authority.issuer.key().serialize_pem());
        (authority, own)
    }

    fn with_names(names: &[&str]) -> Self {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "keysweep test authority");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate");
        let directory = tempfile::tempdir().expect("a temporary folder can be created");
        fs::write(directory.path().join("ca.pem"), issuer.pem()).expect("the folder can be written to");
        Self { issuer, directory }
    }

    /// Returns the authority's certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Returns the file of the authority's certificate.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Issues a certificate for these names and addresses.
    ///
    /// # Panics
    /// If a name is invalid.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_until(names, 2100)
    }

    /// Issues an expired certificate.
    ///
    /// # Panics
    /// If a name is invalid.
    #[must_use]
    pub fn issue_expired(&self, names: &[&str]) -> Issued {
        self.issue_until(names, 2020)
    }

    /// Issues a certificate of X.509 version 1, as `openssl x509 -req` does without a file of extensions. It has no names.
    ///
    /// # Panics
    /// If `openssl` is missing, or issues another version.
    #[must_use]
    pub fn issue_version_1(&self) -> Issued {
        let file = |name: &str| self.directory.path().join(name);
        let [key, request, certificate] = ["v1-key.pem", "v1-request.pem", "v1-certificate.pem"].map(file);
        write(&key, &KeyPair::generate().expect("a key").serialize_pem());
        write(&file("v1-ca-key.pem"), &self.issuer.key().serialize_pem());
        let run = |arguments: &str| {
            let output = Command::new("openssl").current_dir(self.directory.path()).args(arguments.split(' ')).output();
            let output = output.expect("openssl is installed");
            assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        run("req -new -key v1-key.pem -subj /CN=cache.example -out v1-request.pem");
        run(
            "x509 -req -in v1-request.pem -CA ca.pem -CAkey v1-ca-key.pem -set_serial 1 -days 3650 -out v1-certificate.pem",
        );
        assert!(run("x509 -in v1-certificate.pem -noout -text").contains("Version: 1 "), "{}", request.display());
        Issued { certificate, key }
    }

    fn issue_until(&self, names: &[&str], year: i32) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.distinguished_name.push(DnType::CommonName, "keysweep test");
        params.not_before = date_time_ymd(2010, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let number = fs::read_dir(self.directory.path()).expect("the folder is there").count();
        let file = |kind: &str| self.directory.path().join(format!("{number}-{kind}.pem"));
        let issued = Issued { certificate: file("certificate"), key: file("key") };
        write(&issued.certificate, &certificate.pem());
        write(&issued.key, &key.serialize_pem());
        issued
    }
}

impl Issued {
    /// Returns certificate and key, PEM.
    ///
    /// # Panics
    /// If the files are gone.
    #[must_use]
    pub fn pem(&self) -> (String, String) {
        let read = |path: &Path| fs::read_to_string(path).expect("an issued file can be read");
        (read(&self.certificate), read(&self.key))
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("the folder can be written to");
}
