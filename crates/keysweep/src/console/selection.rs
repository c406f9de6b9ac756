//! What the list of instances shows, and in which order: search, labels, state and order are kept in the address of the page.

use std::{
    cmp::{Ordering, Reverse},
    fmt,
    str::FromStr,
};

use super::{fields::Fields, labels::LabelLink, listed::Listed};
use crate::model::{Instance, Label, Labels, UnknownName, named};

/// Order of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Sort {
    /// Most bytes of stale keys first: where a scan gains most.
    #[default]
    Reclaimable,
    /// Highest stale share first.
    Share,
    /// The newest scan first, then instances without one.
    Scan,
    /// Most memory first.
    Memory,
    Name,
}

named!(Sort, "order of instances", {
    Reclaimable = "reclaimable",
    Share = "share",
    Scan = "scan",
    Memory = "memory",
    Name = "name",
});

impl Sort {
    fn text(self) -> &'static str {
        match self {
            Self::Reclaimable => "Reclaimable",
            Self::Share => "Stale share",
            Self::Scan => "Last scan",
            Self::Memory => "Used memory",
            Self::Name => "Name",
        }
    }

    /// Sorts instances that are sorted by name.
    fn apply(self, listed: &mut [Listed]) {
        let memory = |one: &Listed| one.instance.stats.as_ref().map(|stats| stats.used_memory);
        match self {
            Self::Reclaimable => listed.sort_by_key(|one| Reverse(one.bytes())),
            Self::Share => {
                listed.sort_by(|one, other| other.share().partial_cmp(&one.share()).unwrap_or(Ordering::Equal));
            }
            Self::Scan => listed.sort_by_key(|one| Reverse(one.last_scan())),
            Self::Memory => listed.sort_by_key(|one| Reverse(memory(one))),
            Self::Name => {}
        }
    }
}

/// States by which instances are selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum State {
    #[default]
    All,
    /// A task is active, also one that waits.
    Scanning,
    /// The last scan has failed.
    Failed,
    /// The last poll has failed, for whatever cause.
    Unreachable,
    Paused,
}

named!(State, "state of instances", {
    All = "all",
    Scanning = "scanning",
    Failed = "failed",
    Unreachable = "unreachable",
    Paused = "paused",
});

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::All => "All",
            Self::Scanning => "Scanning",
            Self::Failed => "Failed",
            Self::Unreachable => "Unreachable",
            Self::Paused => "Paused",
        }
    }

    fn matches(self, listed: &Listed) -> bool {
        match self {
            Self::All => true,
            Self::Scanning => listed.is_active(),
            Self::Failed => listed.has_failed(),
            Self::Unreachable => listed.instance.unreachable.is_some(),
            Self::Paused => listed.instance.paused,
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
pub(super) struct Selection {
    /// Path of the list.
    pub(super) path: String,
    pub(super) search: String,
    pub(super) labels: Vec<Label>,
    pub(super) state: State,
    pub(super) sort: Sort,
}

impl Selection {
    /// Returns the selection of all instances.
    pub(super) fn all(path: String) -> Self {
        Self { path, search: String::new(), labels: Vec::new(), state: State::default(), sort: Sort::default() }
    }

    /// Returns what an address selects. An unknown word counts as none, and so does a label that nothing can have: a link with
    /// one is not followed.
    pub(super) fn new(path: String, query: &Fields) -> Self {
        Self {
            path,
            search: query.text("search").to_owned(),
            labels: query.all("label").filter_map(|label| label.parse().ok()).collect(),
            state: query.text("state").parse().unwrap_or_default(),
            sort: query.text("sort").parse().unwrap_or_default(),
        }
    }

    /// Keeps the instances that match search and labels, those of the state of these, and sorts them. Returns links to the
    /// states with their counts.
    pub(super) fn apply(&self, listed: &mut Vec<Listed>) -> Vec<Choice> {
        let wanted = self.search.to_lowercase();
        listed.retain(|Listed { instance, .. }| {
            let is_found = instance.name.to_lowercase().contains(&wanted) || instance.url.text().contains(&wanted);
            is_found && instance.has_labels(&self.labels)
        });
        let choices = State::ALL.iter().map(|&state| {
            let count = listed.iter().filter(|one| state.matches(one)).count();
            let href = Self { state, ..self.clone() }.href(&self.labels, 0);
            Choice { text: format!("{} ({count})", state.text()), href, is_current: state == self.state }
        });
        let choices = choices.collect();
        listed.retain(|one| self.state.matches(one));
        self.sort.apply(listed);
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
            query.append_pair("search", &self.search);
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

    use super::{super::listed::tests::task, *};
    use crate::model::{InstanceStats, PollCode, PollFailure, Reason, Status, Task};

    fn listed(name: &str, stats: Option<(Option<u64>, u64, u64)>) -> Listed {
        let stats = stats.map(|(stale_keys, keys, used_memory)| InstanceStats {
            server: Inspection { stale_keys, keys, used_memory, ..Inspection::default() },
            seen_at: Timestamp::UNIX_EPOCH,
        });
        let url = "redis://cache.example".to_owned();
        let instance =
            Instance { stats, ..Instance::new(name.into(), "p".into(), name.into(), url, Timestamp::UNIX_EPOCH) };
        Listed::new(instance, None, None)
    }

    fn finished(seconds: i64, status: Status, reason: Option<Reason>) -> Option<Task> {
        Some(Task { finished_at: Timestamp::from_second(seconds).ok(), ..task(status, reason) })
    }

    /// Returns the names that an address shows, in their order, and the counts of the states.
    fn shown(query: &str) -> (String, Vec<String>) {
        let mut all = vec![
            listed("a", None),
            listed("b", Some((Some(10), 1_000, 500_000))),
            listed("c", Some((Some(300), 100_000, 9_000_000))),
            listed("d", Some((Some(40), 100, 7_000))),
            listed("e", Some((None, 50, 1_000))),
        ];
        all[0].instance.unreachable = Some(PollFailure::new(PollCode::Tls, "unknown issuer"));
        all[1].newest = finished(5, Status::Failed, Some(Reason::Denied));
        all[2].newest = finished(9, Status::Failed, Some(Reason::Cancelled));
        all[3].instance.paused = true;
        all[4].newest = Some(task(Status::Waiting, None));
        let selection = Selection::new("/list".into(), &Fields::parse(query.as_bytes()));
        let states = selection.apply(&mut all).into_iter().map(|choice| choice.text).collect();
        (all.iter().map(|one| one.instance.name.as_str()).collect(), states)
    }

    #[test]
    fn what_a_scan_gains_most_comes_first_and_what_is_unknown_last() {
        assert_eq!(shown("").0, "cbdae", "27,000, 5,000 and 2,800 bytes");
        assert_eq!(shown("sort=share").0, "dbcae");
        assert_eq!(shown("sort=memory").0, "cbdea");
        assert_eq!(shown("sort=scan").0, "cbead");
        assert_eq!(shown("sort=name").0, "abcde");
        assert_eq!(shown("sort=none").0, "cbdae");
    }

    #[test]
    fn states_select_and_are_counted() {
        let counts = ["All (5)", "Scanning (1)", "Failed (1)", "Unreachable (1)", "Paused (1)"].map(str::to_owned);
        assert_eq!(shown("state=unreachable&sort=name"), ("a".to_owned(), counts.to_vec()));
        let of = |state: &str| shown(&format!("state={state}")).0;
        assert_eq!((of("paused"), of("failed"), of("scanning")), ("d".into(), "b".into(), "e".into()));
    }

    #[test]
    fn links_keep_search_state_and_order() {
        let of = |query: &str| Selection::new("/list".into(), &Fields::parse(query.as_bytes()));
        let selection = of("search=cache&state=paused&sort=memory");
        assert_eq!(selection.href(&[], 2), "/list?search=cache&state=paused&sort=memory&page=2");
        assert_eq!(of("sort=reclaimable&label=x").href(&[], 0), "/list?page=0");
    }
}
