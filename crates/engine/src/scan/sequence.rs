//! The order in which a server ran slices of several connections. Pure.
//!
//! Their replies arrive in another order, and the keys that clients add and delete between two slices show only in the right
//! one.

/// Slices whose place in the order is not known yet.
#[derive(Debug)]
pub(crate) struct Sequence<T> {
    /// Keys of the database after the last slice in order.
    last: Option<u64>,
    /// Keys before and after each slice, where the server reports them, and the slice; in the order of their arrival.
    waiting: Vec<(Option<(u64, u64)>, T)>,
}

impl<T> Default for Sequence<T> {
    fn default() -> Self {
        Self { last: None, waiting: Vec::new() }
    }
}

impl<T> Sequence<T> {
    /// Adds a slice whose reply has arrived. `sizes`: keys of the database before and after it.
    pub fn add(&mut self, sizes: Option<(u64, u64)>, slice: T) {
        self.waiting.push((sizes, slice));
    }

    /// Returns the next slice in order; `None`: it may still arrive. `window`: slices that were under way at the same time, at
    /// most.
    pub fn next(&mut self, window: usize) -> Option<T> {
        if self.waiting.len() < window {
            return None;
        }
        // Where clients write, none may begin with the size that the last one left. Of those that do, one that reclaimed nothing
        // may still be followed by the others.
        let distance = |(sizes, _): &(Option<(u64, u64)>, T)| match (self.last, sizes) {
            (Some(last), Some((before, after))) => (last.abs_diff(*before), before != after),
            _ => (0, false),
        };
        let (index, _) = self.waiting.iter().map(distance).enumerate().min_by_key(|(_, distance)| *distance)?;
        let (sizes, slice) = self.waiting.remove(index);
        self.last = sizes.map(|(_, after)| after).or(self.last);
        Some(slice)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn without_writes_of_clients_the_sizes_of_slices_in_order_leave_no_gap(
            reclaimed in prop::collection::vec(0u64..50, 1..60), choices in prop::collection::vec(0usize..4, 60), window in 1usize..=4,
        ) {
            // The server runs any of the slices that are under way next; the replies are read in the order of sending.
            let mut sizes = vec![(0, 0); reclaimed.len()];
            let (mut keys, mut sent) = (100_000u64, Vec::new());
            let mut next = 0;
            let mut choices = choices.into_iter();
            while next < reclaimed.len() || !sent.is_empty() {
                // A slice is sent once the reply of the one `window` places before it was read, thus run.
                while next < reclaimed.len() && sent.len() < window && sent.first().is_none_or(|first| next - first < window) {
                    sent.push(next);
                    next += 1;
                }
                let slice = sent.remove(choices.next().unwrap_or(0) % sent.len());
                sizes[slice] = (keys, keys - reclaimed[slice]);
                keys -= reclaimed[slice];
            }
            let mut sequence = Sequence { last: Some(100_000), waiting: Vec::new() };
            let mut last = 100_000;
            let mut seen = 0;
            let take = |sequence: &mut Sequence<(u64, u64)>, window: usize, last: &mut u64| {
                let mut seen = 0;
                while let Some((before, after)) = sequence.next(window) {
                    assert_eq!(before, *last, "a gap");
                    *last = after;
                    seen += 1;
                }
                seen
            };
            for sizes in &sizes {
                sequence.add(Some(*sizes), *sizes);
                seen += take(&mut sequence, window, &mut last);
            }
            seen += take(&mut sequence, 1, &mut last);
            prop_assert_eq!(seen, sizes.len());
        }
    }

    #[test]
    fn where_clients_write_every_slice_still_has_a_place() {
        let mut sequence = Sequence::default();
        sequence.add(Some((100, 90)), 'a');
        assert_eq!(sequence.next(1), Some('a'));
        sequence.add(Some((80, 70)), 'c');
        sequence.add(Some((91, 81)), 'b');
        assert_eq!(sequence.next(3), None, "another one may have run before them");
        sequence.add(Some((70, 60)), 'd');
        assert_eq!(sequence.next(3), Some('b'));
        let rest: Vec<char> = std::iter::from_fn(|| sequence.next(1)).collect();
        assert_eq!(rest, ['c', 'd']);
    }

    #[test]
    fn without_sizes_slices_stay_in_the_order_of_their_arrival() {
        let mut sequence = Sequence::default();
        "ab".chars().for_each(|slice| sequence.add(None, slice));
        assert_eq!((sequence.next(2), sequence.next(2), sequence.next(1)), (Some('a'), None, Some('b')));
    }
}
