//! Changes of one instance one after another: each reads what it changes, and has to begin again when another one was faster.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::OwnedMutexGuard;

/// How long a change waits for those before it.
const TURN_TIMEOUT: Duration = Duration::from_secs(3);

type Queue = tokio::sync::Mutex<()>;

/// A queue for each instance that is being changed. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct ChangeQueue(Arc<Mutex<HashMap<String, Weak<Queue>>>>);

impl ChangeQueue {
    /// Waits for the turn to change this instance, which lasts until the guard is dropped. `None`: it does not come in time.
    pub async fn turn(&self, instance_id: &str) -> Option<OwnedMutexGuard<()>> {
        tokio::time::timeout(TURN_TIMEOUT, self.of(instance_id).lock_owned()).await.ok()
    }

    fn of(&self, instance_id: &str) -> Arc<Queue> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.retain(|_, queue| queue.strong_count() > 0);
        if let Some(queue) = queues.get(instance_id).and_then(Weak::upgrade) {
            return queue;
        }
        let queue = Arc::default();
        queues.insert(instance_id.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn changes_of_one_instance_take_turns_and_leave_nothing_behind() {
        let queue = ChangeQueue::default();
        let first = queue.turn("a").await.expect("nothing is before it");
        let other = queue.turn("b").await.expect("another instance");
        let mut second = Box::pin(queue.turn("a"));
        tokio::select! {
            biased;
            _ = &mut second => panic!("the first one has not ended"),
            () = std::future::ready(()) => {}
        }
        drop((first, other));
        drop(second.await.expect("its turn"));
        drop(queue.turn("c").await);
        assert_eq!(queue.0.lock().expect("no panic").len(), 1, "the last one is removed by the next");
    }
}
