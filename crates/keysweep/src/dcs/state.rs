//! What the operations share: the services behind them, and how a request is authorized.

use axum::extract::Request;

use super::error::DcsError;
use crate::{
    auth::{Authenticator, Authorized},
    instances::Instances,
    model::{Instance, Role},
    request::RequestId,
    task::Tasks,
};

/// State of the operations.
#[derive(Clone)]
pub struct DcsState {
    /// Instances and their auto-scans.
    pub instances: Instances,
    /// Scan tasks.
    pub tasks: Tasks,
    /// Checks credentials and roles.
    pub auth: Authenticator,
}

impl DcsState {
    /// Authorizes a request on a project. `repeatable`: whether sending it twice has the effect of sending it once.
    pub(super) async fn authorize(
        &self,
        request: Request,
        needed: Role,
        repeatable: bool,
    ) -> Result<Authorized, DcsError> {
        let request_id = RequestId::of(request.extensions());
        let authorized = self.auth.authorize(request, needed, repeatable).await;
        authorized.map_err(|denied| DcsError::from_denied(denied, request_id))
    }

    /// Authorizes a request on an instance.
    pub(super) async fn authorize_instance(
        &self,
        request: Request,
        needed: Role,
    ) -> Result<(Authorized, Instance), DcsError> {
        let repeatable = request.method().is_safe();
        self.with_instance(self.authorize(request, needed, repeatable).await?).await
    }

    /// Authorizes a create. Clients send it again unchanged, and a second create returns the active task.
    pub(super) async fn authorize_create(&self, request: Request) -> Result<(Authorized, Instance), DcsError> {
        self.with_instance(self.authorize(request, Role::Operator, true).await?).await
    }

    async fn with_instance(&self, authorized: Authorized) -> Result<(Authorized, Instance), DcsError> {
        let found = self.auth.instance(&authorized).await;
        let instance = found.map_err(|denied| DcsError::from_denied(denied, RequestId::default()))?;
        Ok((authorized, instance))
    }
}
