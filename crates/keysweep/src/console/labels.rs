//! Labels on pages: as links that select instances, and as the selection of a list.

use crate::model::{Instance, Label, Labels};

/// A label with a link: to the instances that have it as well or, where it is a filter, to those without the filter.
pub(super) struct LabelLink {
    pub(super) text: String,
    pub(super) href: String,
}

/// What a page of the list shows.
pub(super) struct Selection<'c> {
    /// Path of the list.
    pub(super) path: String,
    pub(super) search: &'c str,
    pub(super) labels: Vec<Label>,
}

impl Selection<'_> {
    /// Returns the address of a page of instances that match the search and have these labels.
    pub(super) fn href(&self, labels: &[Label], page: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if !self.search.is_empty() {
            query.append_pair("search", self.search);
        }
        for label in labels {
            query.append_pair("label", &label.to_string());
        }
        format!("{}?{}", self.path, query.append_pair("page", &page.to_string()).finish())
    }

    /// Returns the labels of an instance, each with a link to the instances that have it, too.
    pub(super) fn with(&self, instance: &Instance) -> Vec<LabelLink> {
        let labels = instance.labels.value().into_iter().flat_map(Labels::iter);
        let link = |label: Label| {
            let mut labels = self.labels.clone();
            labels.retain(|other| other.name != label.name);
            labels.push(label.clone());
            LabelLink { text: label.to_string(), href: self.href(&labels, 0) }
        };
        labels.map(link).collect()
    }

    /// Returns the labels by which instances are selected, each with a link to the list without it.
    pub(super) fn filters(&self) -> Vec<LabelLink> {
        let without = |removed: &Label| {
            let labels: Vec<Label> = self.labels.iter().filter(|label| *label != removed).cloned().collect();
            LabelLink { text: removed.to_string(), href: self.href(&labels, 0) }
        };
        self.labels.iter().map(without).collect()
    }
}
