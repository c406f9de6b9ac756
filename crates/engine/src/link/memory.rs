//! Memory for the replies of servers, shared by all connections of a process. The limit of a reply bounds one connection, and a
//! service has hundreds at a time, to as many primaries as a server names: only a sum bounds what servers make it hold.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::error::LinkError;

/// Bytes of memory that the connections of a process may take for replies, and those that they have taken.
#[derive(Debug)]
pub struct ReplyMemory {
    most: usize,
    of_one: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    /// The most since [`ReplyMemory::take_peak`].
    peak: usize,
    /// Times that there was not enough.
    refused: u64,
    by_owner: HashMap<Arc<str>, usize>,
}

impl ReplyMemory {
    /// Returns memory of `most` bytes, of which one owner gets `of_one`, so that one alone leaves some for others.
    pub fn new(most: usize, of_one: usize) -> Self {
        Self { most, of_one, taken: Mutex::default() }
    }

    /// Returns the bytes that there are.
    pub fn limit(&self) -> usize {
        self.most
    }

    /// Returns the bytes that are taken.
    pub fn taken(&self) -> usize {
        self.lock().bytes
    }

    /// Returns the most bytes that were taken at a time since the last call.
    pub fn take_peak(&self) -> usize {
        let mut taken = self.lock();
        let now = taken.bytes;
        std::mem::replace(&mut taken.peak, now)
    }

    /// Returns how often there was not enough memory.
    pub fn refused(&self) -> u64 {
        self.lock().refused
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The memory that the connections of one owner draw on. Clones share it. The default has no bound: a command that scans one
/// target shares its memory with nothing else.
#[derive(Debug, Clone, Default)]
pub struct MemoryShare(Option<(Arc<ReplyMemory>, Arc<str>)>);

impl MemoryShare {
    /// Returns the share of this owner.
    pub fn new(memory: &Arc<ReplyMemory>, owner: &str) -> Self {
        Self(Some((Arc::clone(memory), owner.into())))
    }

    /// Takes this many bytes.
    ///
    /// # Errors
    /// `NoMemory`: they are not free.
    pub(crate) fn take(&self, bytes: usize) -> Result<Held, LinkError> {
        let mut held = Held { share: self.clone(), bytes: 0 };
        held.grow_to(bytes).map(|()| held)
    }
}

/// Bytes that are taken until this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Held {
    share: MemoryShare,
    bytes: usize,
}

impl Held {
    /// Returns the bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the share that the bytes are of.
    pub fn share(&self) -> &MemoryShare {
        &self.share
    }

    /// Takes as many more as make it `bytes`.
    ///
    /// # Errors
    /// `NoMemory`: they are not free. It keeps what it has.
    pub fn grow_to(&mut self, bytes: usize) -> Result<(), LinkError> {
        let more = bytes.saturating_sub(self.bytes);
        if more > 0
            && let Some((memory, owner)) = &self.share.0
        {
            let mut taken = memory.lock();
            let of_owner = taken.by_owner.get(owner).copied().unwrap_or(0);
            if taken.bytes + more > memory.most || of_owner + more > memory.of_one {
                taken.refused += 1;
                return Err(LinkError::NoMemory);
            }
            taken.bytes += more;
            taken.peak = taken.peak.max(taken.bytes);
            taken.by_owner.insert(Arc::clone(owner), of_owner + more);
        }
        self.bytes += more;
        Ok(())
    }

    /// Takes as many more as make it `bytes` if the owner has more than half of its share left. Returns whether it did.
    pub fn grow_if_ample(&mut self, bytes: usize) -> bool {
        let is_ample = self.share.0.as_ref().is_none_or(|(memory, owner)| {
            let of_owner = memory.lock().by_owner.get(owner).copied().unwrap_or(0);
            of_owner + bytes.saturating_sub(self.bytes) <= memory.of_one / 2
        });
        is_ample && self.grow_to(bytes).is_ok()
    }

    /// Gives all bytes back.
    pub fn release(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if bytes > 0
            && let Some((memory, owner)) = &self.share.0
        {
            let mut taken = memory.lock();
            taken.bytes -= bytes;
            match taken.by_owner.get_mut(owner) {
                Some(of_owner) if *of_owner > bytes => *of_owner -= bytes,
                _ => drop(taken.by_owner.remove(owner)),
            }
        }
    }

    /// Returns what it holds as a value of its own, and holds nothing any more.
    pub fn hand_over(&mut self) -> Self {
        Self { share: self.share.clone(), bytes: std::mem::take(&mut self.bytes) }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.release();
    }
}

/// Bytes that several values stand for, until the last of them is dropped. It is no part of what these say: all are equal.
#[derive(Clone, Default)]
pub(crate) struct Kept(Option<Arc<Held>>);

impl From<Held> for Kept {
    fn from(held: Held) -> Self {
        Self((held.bytes() > 0).then(|| Arc::new(held)))
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.as_ref().map_or(0, |held| held.bytes()))
    }
}

impl PartialEq for Kept {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Kept {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_leaves_memory_for_another_and_what_is_dropped_is_free_again() {
        let memory = Arc::new(ReplyMemory::new(100, 75));
        let [one, two] = ["one", "two"].map(|owner| MemoryShare::new(&memory, owner));
        let mut first = one.take(70).expect("it is free");
        assert!(matches!(first.grow_to(76), Err(LinkError::NoMemory)) && first.bytes() == 70);
        first.grow_to(75).expect("as much as one owner gets");
        let kept = Kept::from(two.take(25).expect("the rest"));
        assert!(matches!(two.take(1), Err(LinkError::NoMemory)), "all is taken");
        assert_eq!((memory.limit(), memory.refused()), (100, 2));
        assert!(
            !Held { share: two.clone(), bytes: 0 }.grow_if_ample(20),
            "it has 25 of the 37 that are half of its share"
        );
        let moved = first.hand_over();
        drop(first);
        assert_eq!(memory.taken(), 100, "what was handed over is still held");
        assert_eq!(memory.take_peak(), 100);
        drop(moved);
        let clone = kept.clone();
        drop(kept);
        assert_eq!(memory.taken(), 25, "a clone holds it, too");
        assert_eq!((memory.take_peak(), memory.take_peak()), (100, 25));
        drop(clone);
        assert!(memory.taken() == 0 && memory.lock().by_owner.is_empty());
        assert!(one.take(75).is_ok() && MemoryShare::default().take(usize::MAX).is_ok());
    }
}
