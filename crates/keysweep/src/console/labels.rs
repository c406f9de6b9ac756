//! Labels on pages, as links that select instances.

/// A label with a link: to the instances that have it as well or, where it is a filter, to those without the filter.
pub(super) struct LabelLink {
    pub(super) text: String,
    pub(super) href: String,
}
