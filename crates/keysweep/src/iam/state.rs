//! What the operations share.

use super::settings::CatalogSettings;
use crate::{auth::Authenticator, identity::Identity};

/// State of the operations.
#[derive(Clone)]
pub struct IamState {
    /// Users and their tokens.
    pub identity: Identity,
    /// Checks passwords and credentials.
    pub auth: Authenticator,
    /// How clients name and reach the service.
    pub catalog: CatalogSettings,
    /// Whether the listener speaks TLS.
    pub secure: bool,
}
