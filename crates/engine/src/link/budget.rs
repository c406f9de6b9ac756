//! How much of a reply is held in memory. Lengths of strings and arrays alone bound nothing: a server may send as many
//! strings of the greatest length as an array may have. One budget counts the bytes and the elements of a whole reply, by
//! what the reply is for, so that no server decides how much memory a scan or a service takes.

use super::error::LinkError;

/// Most bytes and elements that one reply may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimit {
    bytes: usize,
    elements: usize,
}

impl ReplyLimit {
    /// Replies of a few words: PING, SELECT, AUTH, DBSIZE, TIME, CONFIG GET, PUBSUB NUMPAT and others.
    pub const SHORT: Self = Self { bytes: 64 << 10, elements: 1_000 };
    /// ROLE, which lists the replicas in four elements each.
    pub const ROLE: Self = Self { bytes: 512 << 10, elements: 16_384 };
    /// INFO, whose keyspace section has a line for each database that holds keys.
    pub const INFO: Self = Self { bytes: 2 << 20, elements: 100 };
    /// CLUSTER and SENTINEL, which describe nodes and ranges of slots, and the keys of a slot.
    /// Enough for 4,000 ranges of a primary with a replica each; an element takes some 50 bytes of memory.
    pub const TOPOLOGY: Self = Self { bytes: 2 << 20, elements: 60_000 };

    /// Returns the limit for the reply to a command.
    pub fn of(words: &[&[u8]]) -> Self {
        match words.first() {
            Some(&b"ROLE") => Self::ROLE,
            Some(&b"INFO") => Self::INFO,
            Some(&(b"CLUSTER" | b"SENTINEL")) => Self::TOPOLOGY,
            _ => Self::SHORT,
        }
    }

    /// Returns a budget of this size for a reply, or for several that are held at the same time.
    pub fn budget(self) -> Budget {
        Budget { limit: self, bytes: self.bytes, elements: self.elements }
    }
}

/// What is left of the limit of one reply.
#[derive(Debug)]
pub struct Budget {
    limit: ReplyLimit,
    bytes: usize,
    elements: usize,
}

impl Budget {
    /// Takes an element off.
    pub(super) fn take_element(&mut self) -> Result<(), LinkError> {
        self.elements = self.elements.checked_sub(1).ok_or(self.exhausted())?;
        Ok(())
    }

    /// Whether the budget has room for the announced elements of an array, before any of them is read.
    pub(super) fn allows_elements(&self, count: u64) -> Result<(), LinkError> {
        if count > self.elements as u64 { Err(self.exhausted()) } else { Ok(()) }
    }

    /// Takes the bytes of a string off.
    pub(super) fn take_bytes(&mut self, bytes: usize) -> Result<(), LinkError> {
        self.bytes = self.bytes.checked_sub(bytes).ok_or(self.exhausted())?;
        Ok(())
    }

    /// Reads a reply within this limit, and within what is left of the budget for all.
    pub(super) fn within<T>(
        &mut self,
        limit: ReplyLimit,
        read: impl FnOnce(&mut Self) -> Result<T, LinkError>,
    ) -> Result<T, LinkError> {
        let (bytes, elements) = (self.bytes.min(limit.bytes), self.elements.min(limit.elements));
        let mut part = Self { limit, bytes, elements };
        let reply = read(&mut part)?;
        self.bytes -= bytes - part.bytes;
        self.elements -= elements - part.elements;
        Ok(reply)
    }

    fn exhausted(&self) -> LinkError {
        LinkError::TooLarge { bytes: self.limit.bytes, elements: self.limit.elements }
    }
}

#[cfg(test)]
impl Budget {
    /// Leaves at most this much of the budget.
    pub fn shrink(&mut self, bytes: usize, elements: usize) {
        (self.bytes, self.elements) = (self.bytes.min(bytes), self.elements.min(elements));
    }
}
