//! How many event streams there are: each holds a connection for as long as its task runs, so that one caller could take the
//! places of all others.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most event streams at a time: a quarter of the connections.
const MAX_STREAMS: usize = 128;
/// Most event streams of one user at a time.
const MAX_OF_ONE: u32 = 16;

type Counts = Arc<Mutex<HashMap<String, u32>>>;

/// The event streams of this process. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Streams {
    all: Arc<Semaphore>,
    by_user: Counts,
}

impl Default for Streams {
    fn default() -> Self {
        Self { all: Arc::new(Semaphore::new(MAX_STREAMS)), by_user: Arc::default() }
    }
}

impl Streams {
    /// Counts a stream of this user until the permit is dropped; `None`: there are too many, of the user or in all. Without
    /// authentication there are no users to tell apart.
    pub(super) fn admit(&self, user: Option<&str>) -> Option<StreamPermit> {
        let permit = Arc::clone(&self.all).try_acquire_owned().ok()?;
        let Some(user) = user else { return Some(StreamPermit { _permit: permit, counted: None }) };
        let mut by_user = self.by_user.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_user.entry(user.to_owned()).or_default();
        if *count >= MAX_OF_ONE {
            return None;
        }
        *count += 1;
        Some(StreamPermit { _permit: permit, counted: Some((Arc::clone(&self.by_user), user.to_owned())) })
    }
}

/// A stream that is counted.
#[derive(Debug)]
pub(super) struct StreamPermit {
    _permit: OwnedSemaphorePermit,
    counted: Option<(Counts, String)>,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let Some((by_user, user)) = &self.counted else { return };
        let mut by_user = by_user.lock().unwrap_or_else(PoisonError::into_inner);
        match by_user.get_mut(user) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(by_user.remove(user)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_bounded_for_each_user_and_in_all() {
        let streams = Streams::default();
        let of_ada: Vec<_> = (0..MAX_OF_ONE).map(|_| streams.admit(Some("ada"))).collect();
        assert!(of_ada.iter().all(Option::is_some) && streams.admit(Some("ada")).is_none());
        let others: Vec<_> =
            (of_ada.len()..MAX_STREAMS).map(|number| streams.admit(Some(&number.to_string()))).collect();
        assert!(others.iter().all(Option::is_some) && streams.admit(Some("bob")).is_none());
        drop(of_ada);
        assert!(streams.admit(Some("bob")).is_some() && streams.admit(Some("ada")).is_some());
        drop(others);
        assert!(streams.by_user.lock().expect("not poisoned").is_empty());
    }
}
