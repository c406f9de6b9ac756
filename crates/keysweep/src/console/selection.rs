//! What the list of instances shows, and in which order: search, labels, state and order are kept in the address of the page.

use std::{cmp::Reverse, fmt, str::FromStr};

use super::labels::LabelLink;
use crate::model::{Instance, Label, Labels, UnknownName, named};

/// Order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    /// Most stale keys first: where a scan gains most.
    #[default]
    Stale,
    /// Highest stale share first.
    Share,
    /// Most memory first.
    Memory,
    Name,
}

named!(Sort, "order of instances", { Stale = "stale", Share = "share", Memory = "memory", Name = "name" });

impl Sort {
    fn text(self) -> &'static str {
        match self {
            Self::Stale => "Stale keys",
            Self::Share => "Stale share",
            Self::Memory => "Used memory",
            Self::Name => "Name",
        }
    }

    /// Sorts instances that are sorted by name.
    fn apply(self, instances: &mut [Instance]) {
        let stale = |instance: &Instance| instance.stats.as_ref().and_then(|stats| stats.stale_keys);
        let keys = |instance: &Instance| instance.stats.as_ref().map_or(0, |stats| stats.keys);
        match self {
            Self::Stale => instances.sort_by_key(|instance| Reverse(stale(instance))),
            Self::Share => {
                let share =
                    |instance: &Instance| stale(instance).map(|stale| stale as f64 / keys(instance).max(1) as f64);
                instances
                    .sort_by(|one, other| share(other).partial_cmp(&share(one)).unwrap_or(std::cmp::Ordering::Equal));
            }
            Self::Memory => {
                instances.sort_by_key(|instance| Reverse(instance.stats.as_ref().map(|stats| stats.used_memory)))
            }
            Self::Name => {}
        }
    }
}

/// States by which instances are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    All,
    Unreachable,
    Paused,
}

named!(State, "state of instances", { All = "all", Unreachable = "unreachable", Paused = "paused" });

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::All => "All",
            Self::Unreachable => "Unreachable",
            Self::Paused => "Paused",
        }
    }

    fn matches(self, instance: &Instance) -> bool {
        match self {
            Self::All => true,
            Self::Unreachable => instance.unreachable.is_some(),
            Self::Paused => instance.paused,
        }
    }
}

/// A link among several, one of which is the current one.
pub(super) struct Choice {
    pub(super) text: String,
    pub(super) href: String,
    pub(super) is_current: bool,
}

/// What a page of the list shows.
#[derive(Clone)]
pub(super) struct Selection<'c> {
    /// Path of the list.
    pub(super) path: String,
    pub(super) search: &'c str,
    pub(super) labels: Vec<Label>,
    pub(super) state: State,
    pub(super) sort: Sort,
}

impl<'c> Selection<'c> {
    /// Returns the selection of all instances.
    pub(super) fn all(path: String) -> Self {
        Self { path, search: "", labels: Vec::new(), state: State::default(), sort: Sort::default() }
    }

    /// Returns what an address selects. An unknown word counts as none: a link with one is not followed.
    pub(super) fn new(path: String, search: &'c str, labels: Vec<Label>, state: &str, sort: &str) -> Self {
        let (state, sort) = (state.parse().unwrap_or_default(), sort.parse().unwrap_or_default());
        Self { path, search, labels, state, sort }
    }

    /// Keeps the instances that match search and labels, those of the state of these, and sorts them. Returns links to the
    /// states with their counts.
    pub(super) fn apply(&self, instances: &mut Vec<Instance>) -> Vec<Choice> {
        let wanted = self.search.to_lowercase();
        instances.retain(|found| {
            let is_found = found.name.to_lowercase().contains(&wanted) || found.url.text().contains(&wanted);
            is_found && found.has_labels(&self.labels)
        });
        let choices = State::ALL.iter().map(|&state| {
            let count = instances.iter().filter(|instance| state.matches(instance)).count();
            let href = Self { state, ..self.clone() }.href(&self.labels, 0);
            Choice { text: format!("{} ({count})", state.text()), href, is_current: state == self.state }
        });
        let choices = choices.collect();
        instances.retain(|instance| self.state.matches(instance));
        self.sort.apply(instances);
        choices
    }

    /// Returns links to the same instances in each order.
    pub(super) fn orders(&self) -> Vec<Choice> {
        let choices = Sort::ALL.iter().map(|&sort| {
            let href = Self { sort, ..self.clone() }.href(&self.labels, 0);
            Choice { text: sort.text().to_owned(), href, is_current: sort == self.sort }
        });
        choices.collect()
    }

    /// Returns the address of a page of instances that match the search and have these labels.
    pub(super) fn href(&self, labels: &[Label], page: usize) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        if !self.search.is_empty() {
            query.append_pair("search", self.search);
        }
        for label in labels {
            query.append_pair("label", &label.to_string());
        }
        query.extend_pairs(self.kept());
        format!("{}?{}", self.path, query.append_pair("page", &page.to_string()).finish())
    }

    /// Returns the parameters of state and order, which a search keeps; those that are the usual ones are left out.
    pub(super) fn kept(&self) -> Vec<(&'static str, &'static str)> {
        let state = (self.state != State::default()).then(|| ("state", self.state.as_str()));
        let sort = (self.sort != Sort::default()).then(|| ("sort", self.sort.as_str()));
        state.into_iter().chain(sort).collect()
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use keysweep_engine::Inspection;

    use super::*;
    use crate::model::InstanceStats;

    fn instance(name: &str, stats: Option<(Option<u64>, u64, u64)>) -> Instance {
        let stats = stats.map(|(stale_keys, keys, used_memory)| InstanceStats {
            server: Inspection { stale_keys, keys, used_memory, ..Inspection::default() },
            seen_at: Timestamp::UNIX_EPOCH,
        });
        let url = "redis://cache.example".to_owned();
        Instance { stats, ..Instance::new(name.into(), "p".into(), name.into(), url, Timestamp::UNIX_EPOCH) }
    }

    /// Returns the names that an address shows, in their order, and the counts of the states.
    fn shown(state: &str, sort: &str) -> (String, Vec<String>) {
        let mut instances = vec![
            instance("a", None),
            instance("b", Some((Some(10), 1_000, 5))),
            instance("c", Some((Some(300), 100_000, 9))),
            instance("d", Some((Some(40), 100, 7))),
            instance("e", Some((None, 50, 1))),
        ];
        instances[0].unreachable = Some("connection refused".into());
        instances[3].paused = true;
        let selection = Selection::new("/list".into(), "", Vec::new(), state, sort);
        let states = selection.apply(&mut instances).into_iter().map(|choice| choice.text).collect();
        (instances.iter().map(|instance| instance.name.as_str()).collect(), states)
    }

    #[test]
    fn what_a_scan_gains_most_comes_first_and_what_is_unknown_last() {
        assert_eq!(shown("", "").0, "cdbae");
        assert_eq!(shown("", "share").0, "dbcae");
        assert_eq!(shown("", "memory").0, "cdbea");
        assert_eq!(shown("", "name").0, "abcde");
        assert_eq!(shown("", "no such order").0, "cdbae");
    }

    #[test]
    fn states_select_and_are_counted() {
        let counts = ["All (5)", "Unreachable (1)", "Paused (1)"].map(str::to_owned);
        assert_eq!(shown("unreachable", "name"), ("a".to_owned(), counts.to_vec()));
        assert_eq!(shown("paused", "").0, "d");
    }

    #[test]
    fn links_keep_search_state_and_order() {
        let selection = Selection::new("/list".into(), "cache", Vec::new(), "paused", "memory");
        assert_eq!(selection.href(&[], 2), "/list?search=cache&state=paused&sort=memory&page=2");
        let usual = Selection::new("/list".into(), "", Vec::new(), "", "stale");
        assert_eq!(usual.href(&[], 0), "/list?page=0");
    }
}
