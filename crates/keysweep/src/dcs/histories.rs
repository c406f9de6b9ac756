//! ShowExpireKeyScanInfo: the scans of an instance, newest first.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    DcsState,
    error::{DcsError, OnInstance},
    query::Query,
    task_body::{TaskBody, counter},
};
use crate::{
    model::{Role, Status, Task},
    store::PageRequest,
};

const DEFAULT_LIMIT: u64 = 10;

/// The scans of an instance. `records` is the only array at the top level and present even if empty: pagers stop there.
#[derive(Debug, Serialize, ToSchema)]
pub struct Histories {
    records: Vec<Record>,
    instance_id: String,
    /// Expired keys that all scans reclaimed.
    total: i32,
    /// Number of scans on all pages.
    count: i32,
}

#[derive(Debug, Serialize, ToSchema)]
struct Record {
    #[serde(flatten)]
    task: TaskBody,
    /// Expired keys that this scan reclaimed.
    num: i32,
}

impl From<&Task> for Record {
    fn from(task: &Task) -> Self {
        Self { task: TaskBody::from(task), num: counter(task.reclaimed) }
    }
}

/// List the scans of an instance, newest first
#[utoipa::path(
    get, path = "/v2/{project_id}/instances/{instance_id}/auto-expire/histories", tag = "DCS v2", operation_id = "ShowExpireKeyScanInfo",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID"), ("offset" = Option<u64>, Query, description = "Entries to skip [default: 0]"), ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "Largest number of entries to return [default: 10]"), ("status" = Option<Status>, Query, description = "Status of the entries to return")),
    responses((status = 200, body = Histories), OnInstance)
)]
pub(super) async fn handle(State(state): State<DcsState>, request: Request) -> Result<Json<Histories>, DcsError> {
    let (authorized, instance) = state.authorize_instance(request, Role::Reader).await?;
    let page = page_request(&Query(authorized.query))?;
    let page = state.tasks.page(&instance, &page).await?;
    Ok(Json(Histories {
        records: page.tasks.iter().map(Record::from).collect(),
        instance_id: instance.id,
        total: counter(page.reclaimed),
        count: counter(page.count),
    }))
}

fn page_request(query: &Query) -> Result<PageRequest, DcsError> {
    let (offset, limit) = (query.offset()?, query.limit(DEFAULT_LIMIT)?);
    let status = query.value("status").map(|name| name.parse::<Status>()).transpose();
    Ok(PageRequest { status: status.map_err(|_| DcsError::Parameter("status"))?, offset, limit })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_query_the_page_is_the_first_ten() {
        let page = page_request(&Query::default()).expect("defaults");
        assert_eq!((page.offset, page.limit, page.status), (0, 10, None));
    }

    #[test]
    fn an_invalid_value_names_its_parameter() {
        for (query, name) in [
            ("offset=-1", "offset"),
            ("offset=x", "offset"),
            ("offset=", "offset"),
            ("limit=0", "limit"),
            ("limit=1001", "limit"),
            ("offset=1&status=done", "status"),
        ] {
            assert!(
                matches!(page_request(&Query(query.into())), Err(DcsError::Parameter(found)) if found == name),
                "{query}"
            );
        }
    }
}
