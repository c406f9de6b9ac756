//! The instances that are due for a poll or an estimate: a number of them at a time, and those of a project that has many in progress
//! after those of others. A place is used again as soon as it is free: a server that does not answer delays its own poll alone.

use std::{collections::HashMap, time::Duration};

use tokio::{
    task::{Id, JoinSet},
    time::{Instant, timeout_at},
};

use crate::{model::Instance, store::StoreError};

/// Time between two claims while there may be more to claim. Each is a write.
const REFILL_INTERVAL: Duration = Duration::from_secs(1);
/// Time between two claims while work is in progress and nothing else was due.
const SEARCH_INTERVAL: Duration = Duration::from_secs(5);

/// Work in progress.
struct InProgress {
    most: usize,
    tasks: JoinSet<Result<(), StoreError>>,
    projects: HashMap<Id, String>,
}

impl InProgress {
    fn free(&self) -> usize {
        self.most - self.tasks.len()
    }

    /// Returns the projects that have a quarter of the places or more.
    fn crowded(&self) -> Vec<String> {
        let mut counts = HashMap::<&String, usize>::new();
        for project in self.projects.values() {
            *counts.entry(project).or_default() += 1;
        }
        counts.into_iter().filter(|(_, count)| *count >= self.a_quarter()).map(|(project, _)| project.clone()).collect()
    }

    fn a_quarter(&self) -> usize {
        self.most.div_ceil(4)
    }

    /// Waits for a piece of work to end. `None`: none is in progress. A panic ends its own piece alone.
    async fn next(&mut self) -> Option<Result<(), StoreError>> {
        let ended = self.tasks.join_next_with_id().await?;
        let id = ended.as_ref().map_or_else(|panic| panic.id(), |(id, _)| *id);
        self.projects.remove(&id);
        Some(ended.map_or_else(
            |panic| {
                tracing::error!(%panic, "work on an instance crashed");
                Ok(())
            },
            |(_, result)| result,
        ))
    }
}

/// Works on instances, at most `most` at a time, until none is due and none in progress. Returns how many there were; fails with the
/// first error of the store.
///
/// `claim`: claims up to a number of instances, those of the given projects after all others.
pub(super) async fn work_off<C, W>(
    most: usize,
    mut claim: impl FnMut(u32, Vec<String>) -> C,
    mut work: impl FnMut(Instance) -> W,
) -> Result<usize, StoreError>
where
    C: Future<Output = Result<Vec<Instance>, StoreError>>,
    W: Future<Output = Result<(), StoreError>> + Send + 'static,
{
    let mut running = InProgress { most, tasks: JoinSet::new(), projects: HashMap::new() };
    let mut count = 0;
    loop {
        let free = running.free();
        let claimed = if free > 0 { claim(free as u32, running.crowded()).await? } else { Vec::new() };
        let may_be_more = claimed.len() == free;
        count += claimed.len();
        for instance in claimed {
            let project = instance.project_id.clone();
            let id = running.tasks.spawn(work(instance)).id();
            running.projects.insert(id, project);
        }
        if running.tasks.is_empty() {
            return Ok(count);
        }
        let until = Instant::now() + if may_be_more { REFILL_INTERVAL } else { SEARCH_INTERVAL };
        while let Ok(Some(ended)) = timeout_at(until, running.next()).await {
            ended?;
            if running.tasks.is_empty() || (may_be_more && running.free() >= running.a_quarter()) {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use jiff::Timestamp;
    use tokio::sync::Semaphore;

    use super::*;

    fn instance(project: &str, number: usize) -> Instance {
        let name = format!("{project}{number}");
        Instance::new(name.clone(), project.into(), name, "redis://h".into(), Timestamp::UNIX_EPOCH)
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_delays_no_other_project() {
        let due: Vec<Instance> = (0..20).map(|number| instance("greedy", number)).collect();
        let due = Arc::new(Mutex::new(due));
        let (answers, order) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(Vec::new())));
        let claim = |limit: u32, last: Vec<String>| {
            let mut due = due.lock().expect("not poisoned");
            // As the store does it.
            due.sort_by_key(|instance| last.contains(&instance.project_id));
            let end = due.len().min(limit as usize);
            let claimed = due.drain(..end).collect();
            async { Ok(claimed) }
        };
        let work = |instance: Instance| {
            let (answers, order, due) = (Arc::clone(&answers), Arc::clone(&order), Arc::clone(&due));
            async move {
                order.lock().expect("not poisoned").push(instance.name.clone());
                // One of another project becomes due while all places are taken.
                if instance.name == "greedy7" {
                    due.lock().expect("not poisoned").push(self::instance("modest", 0));
                }
                if instance.name != "modest0" {
                    answers.acquire().await.expect("not closed").forget();
                }
                Ok(())
            }
        };
        let answer = async {
            while order.lock().expect("not poisoned").len() < 8 {
                tokio::task::yield_now().await;
            }
            // Two of eight answer, and six go on taking their time.
            answers.add_permits(2);
            while !order.lock().expect("not poisoned").contains(&"modest0".to_owned()) {
                tokio::task::yield_now().await;
            }
            let seen = order.lock().expect("not poisoned").len();
            assert!(seen <= 10, "{seen} were begun before that of the other project");
            answers.add_permits(18);
        };
        let (count, ()) = tokio::join!(work_off(8, claim, work), answer);
        assert_eq!(count.expect("no failure"), 21);
    }

    #[tokio::test]
    async fn a_failure_of_the_store_ends_the_work_and_a_panic_one_piece() {
        let mut due = vec![instance("shop", 0), instance("shop", 1)];
        let claim = |_, _| {
            let claimed = std::mem::take(&mut due);
            async { Ok(claimed) }
        };
        let worked = work_off(8, claim, |instance| async move {
            assert_eq!(instance.name, "shop0", "the panic of the test");
            Ok(())
        });
        assert_eq!(worked.await.expect("no failure"), 2);
        let claim = |_, _| async { Ok(vec![instance("shop", 0)]) };
        let failed = work_off(1, claim, |_| async { Err(StoreError::Missing("instance")) }).await;
        assert!(failed.is_err());
    }
}
