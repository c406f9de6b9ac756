//! How clients name and reach this service.

/// Name of the domain and of the region unless they are configured.
const DEFAULT_NAME: &str = "default";

/// How clients name and reach this service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogSettings {
    /// Name of the only domain.
    pub domain: String,
    /// Name of the only region.
    pub region: String,
    /// URL of the service without a slash at the end, such as `https://keysweep.example`; `None`: the address to which a
    /// request was sent.
    pub public_url: Option<String>,
}

impl Default for CatalogSettings {
    fn default() -> Self {
        Self { domain: DEFAULT_NAME.to_owned(), region: DEFAULT_NAME.to_owned(), public_url: None }
    }
}

impl CatalogSettings {
    /// Returns the host of the public URL as clients send it in Host: with the port if the URL has one.
    pub fn public_host(&self) -> Option<String> {
        self.public_url.as_ref()?.split_once("://").map(|(_, host)| host.to_owned())
    }
}
