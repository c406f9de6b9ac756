//! What the operations share: the services behind them, and how a request is authorized.

use axum::extract::Request;
use tokio::sync::watch;

use super::{error::ApiError, streams::Streams};
use crate::{
    auth::{Authenticator, Authorized},
    hold::Holds,
    identity::Identity,
    instances::Instances,
    model::{Instance, Role},
    task::Tasks,
};

/// State of the operations.
#[derive(Clone)]
pub struct ApiState {
    /// Instances and the audit trail.
    pub identity: Identity,
    pub instances: Instances,
    /// Scan tasks.
    pub tasks: Tasks,
    /// How stale shares are held.
    pub holds: Holds,
    /// Checks credentials and roles.
    pub auth: Authenticator,
    /// Ends event streams when the process shuts down, so that open streams do not delay it.
    pub shutdown: watch::Receiver<bool>,
    /// Event streams.
    pub streams: Streams,
}

impl ApiState {
    /// Authorizes a request on a project, or on a task of it whose existence the operation checks itself.
    pub(super) async fn authorize(&self, request: Request, needed: Role) -> Result<Authorized, ApiError> {
        let repeatable = request.method().is_safe();
        Ok(self.auth.authorize(request, needed, repeatable).await?)
    }

    /// Authorizes a request on an instance.
    pub(super) async fn authorize_instance(
        &self,
        request: Request,
        needed: Role,
    ) -> Result<(Authorized, Instance), ApiError> {
        let authorized = self.authorize(request, needed).await?;
        let instance = self.auth.instance(&authorized).await?;
        Ok((authorized, instance))
    }
}
