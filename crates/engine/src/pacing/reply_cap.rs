//! The largest COUNT whose replies the server delivers. Pure.
//!
//! A server closes the connection of a client whose replies exceed `client-output-buffer-limit`, or with `maxmemory-clients` that
//! of the client with the most. A slice of long key names can do that.

/// Slices with the largest COUNT before twice as many keys are asked for; doubled with every connection that was closed.
const SLICES_BEFORE_GROWTH: u32 = 64;
/// Most doublings of that.
const MAX_DOUBLINGS: u32 = 16;

/// Cap of COUNT, which halves whenever the connection is closed within the reply to a slice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ReplyCap {
    most: Option<u32>,
    closed: u32,
    delivered: u32,
}

impl ReplyCap {
    /// Returns this COUNT, or the cap if that is lower.
    pub fn limit(&self, count: u32) -> u32 {
        self.most.map_or(count, |most| count.min(most))
    }

    /// Returns how often in this scan the connection was closed within a reply.
    pub fn closed(&self) -> u32 {
        self.closed
    }

    /// Records a reply to a slice with this COUNT.
    pub fn record_reply(&mut self, count: u32) {
        let Some(most) = self.most.filter(|most| count >= *most) else { return };
        self.delivered += 1;
        if self.delivered >= SLICES_BEFORE_GROWTH << self.closed.min(MAX_DOUBLINGS) {
            (self.most, self.delivered) = (Some(most.saturating_mul(2)), 0);
        }
    }

    /// Records that the connection was closed within the reply to a slice with this COUNT.
    pub fn record_close(&mut self, count: u32) {
        *self = Self { most: Some((count / 2).max(1)), closed: self.closed + 1, delivered: 0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_halves_until_replies_are_delivered_and_seldom_grows_again() {
        let (mut cap, mut count, mut closed) = (ReplyCap::default(), 16, 0);
        for _ in 0..100_000 {
            count = cap.limit(count * 2);
            // A reply holds at most 5 keys.
            match count > 5 {
                true => (cap.record_close(count), closed += 1).0,
                false => cap.record_reply(count),
            }
        }
        assert!((3..16).contains(&closed), "closed {closed} times");
        assert_eq!(cap.closed(), closed);
    }

    #[test]
    fn count_is_at_least_one() {
        let mut cap = ReplyCap::default();
        (0..3).for_each(|_| cap.record_close(1));
        assert_eq!(cap.limit(10), 1);
    }
}
