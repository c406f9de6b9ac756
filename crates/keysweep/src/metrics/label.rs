//! The label of series about one instance.

use prometheus_client::encoding::EncodeLabelSet;

/// Label of series about one instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct OfInstance {
    pub(super) instance_id: String,
}

impl OfInstance {
    pub(super) fn new(instance_id: &str) -> Self {
        Self { instance_id: instance_id.to_owned() }
    }
}
