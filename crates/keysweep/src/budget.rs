//! Memory that clients decide about: bodies of requests, answers, and the lists that they are made from. Each kind is bounded as a whole,
//! and for each owner, a client or a project.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes that one kind of work may hold, of which one owner gets a part. Clones share them.
#[derive(Debug, Clone)]
pub struct ByteBudget {
    all: usize,
    of_one: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_owner: HashMap<String, Owner>,
    /// Number of the last share.
    last: u64,
}

/// What an owner has taken.
#[derive(Debug, Default)]
struct Owner {
    shares: usize,
    /// Bytes of its shares, without the large one.
    bytes: usize,
    /// Number of the share that may have more than the owner's part.
    large: Option<u64>,
}

impl ByteBudget {
    /// Returns so many bytes, of which one owner gets a part.
    pub fn new(all: usize, of_one: usize) -> Self {
        Self { all, of_one, taken: Arc::default() }
    }

    /// Returns a share of this owner, without bytes as yet.
    pub fn share(&self, owner: String) -> BudgetShare {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.last += 1;
        taken.by_owner.entry(owner.clone()).or_default().shares += 1;
        BudgetShare { budget: self.clone(), owner, number: taken.last, bytes: 0 }
    }
}

/// Bytes of one owner, which are given back when the share is dropped.
#[derive(Debug)]
pub struct BudgetShare {
    budget: ByteBudget,
    owner: String,
    number: u64,
    bytes: usize,
}

impl BudgetShare {
    /// Takes more bytes. Returns false, and takes none, where there are too few, or where the owner has its part. One share of an owner at
    /// a time may have more than that part: what is larger is made one after another, and never refused for ever.
    #[must_use]
    pub fn grow(&mut self, bytes: usize) -> bool {
        let mut taken = self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all = taken.all.saturating_add(bytes);
        if all > self.budget.all {
            return false;
        }
        let owner = taken.by_owner.entry(self.owner.clone()).or_default();
        let is_large = owner.large == Some(self.number);
        if is_large {
            // Counted against all bytes alone.
        } else if owner.bytes.saturating_add(bytes) <= self.budget.of_one {
            owner.bytes += bytes;
        } else if owner.large.is_none() {
            owner.large = Some(self.number);
            owner.bytes = owner.bytes.saturating_sub(self.bytes);
        } else {
            return false;
        }
        taken.all = all;
        self.bytes += bytes;
        true
    }
}

impl Drop for BudgetShare {
    fn drop(&mut self) {
        let mut taken = self.budget.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all = taken.all.saturating_sub(self.bytes);
        let Some(owner) = taken.by_owner.get_mut(&self.owner) else { return };
        match owner.large == Some(self.number) {
            true => owner.large = None,
            false => owner.bytes = owner.bytes.saturating_sub(self.bytes),
        }
        owner.shares = owner.shares.saturating_sub(1);
        if owner.shares == 0 {
            taken.by_owner.remove(&self.owner);
        }
    }
}

#[cfg(test)]
impl ByteBudget {
    /// Returns the bytes that all shares have taken.
    pub fn taken(&self) -> usize {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_gets_its_part_and_one_share_at_a_time_more_than_that() {
        let budget = ByteBudget::new(100, 30);
        let share = |owner: &str| budget.share(owner.to_owned());
        let (mut first, mut second) = (share("a"), share("a"));
        assert!(first.grow(20) && second.grow(10), "the part of the owner");
        assert!(first.grow(50), "the first that needs more gets more");
        assert!(!second.grow(21), "no other one does");
        assert!(second.grow(20), "its part is left to the others");
        let mut other = share("b");
        assert!(!other.grow(1), "all is taken");
        drop(first);
        assert!(other.grow(30) && second.grow(30) && !other.grow(11));
        drop(second);
        assert!(share("a").grow(70));
        drop(other);
        assert_eq!(budget.taken(), 0);
        assert!(budget.taken.lock().expect("not poisoned").by_owner.is_empty());
    }
}
