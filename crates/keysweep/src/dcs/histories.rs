//! ShowExpireKeyScanInfo: the scans of an instance, newest first.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Door,
    error::{DcsError, OnInstance},
    query::Query,
    task_body::{TaskBody, counter},
};
use crate::{
    model::{Role, Status, Task},
    store::PageRequest,
};

const DEFAULT_LIMIT: u64 = 10;

/// The answer. `records` is the only array at the top level and is there when empty: pagers stop at that.
#[derive(Debug, Serialize, ToSchema)]
pub struct Histories {
    records: Vec<Record>,
    instance_id: String,
    /// Keys that all the scans released.
    total: i32,
    /// The scans, on all pages.
    count: i32,
}

#[derive(Debug, Serialize, ToSchema)]
struct Record {
    #[serde(flatten)]
    task: TaskBody,
    /// Keys that this scan released.
    num: i32,
}

impl From<&Task> for Record {
    fn from(task: &Task) -> Self {
        Self { task: TaskBody::from(task), num: counter(task.released) }
    }
}

/// List the scans of an instance, newest first
#[utoipa::path(
    get, path = "/v2/{project_id}/instances/{instance_id}/auto-expire/histories", tag = "DCS v2", operation_id = "ShowExpireKeyScanInfo",
    params(("project_id" = String, Path, description = "Project ID"), ("instance_id" = String, Path, description = "Instance ID"), ("offset" = Option<u64>, Query, description = "How many to leave out [default: 0]"), ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "How many to show"), ("status" = Option<String>, Query, description = "waiting, running, success or failed")),
    responses((status = 200, body = Histories), OnInstance)
)]
pub(super) async fn handle(State(door): State<Door>, request: Request) -> Result<Json<Histories>, DcsError> {
    let admitted = door.admit(request, Role::Reader).await?;
    let request = page_request(&admitted.query)?;
    let page = door.tasks.page(&admitted.instance, &request).await?;
    Ok(Json(Histories {
        records: page.tasks.iter().map(Record::from).collect(),
        instance_id: admitted.instance.id,
        total: counter(page.released),
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
    fn a_list_without_a_query_is_the_first_ten() {
        let page = page_request(&Query::default()).expect("defaults");
        assert_eq!((page.offset, page.limit, page.status), (0, 10, None));
    }

    #[test]
    fn bad_values_name_their_parameter() {
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
