//! Every cursor lies in exactly one chunk, and a scan in any order of chunks visits every key.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;

use super::{Call, simulated::Keyspace, *};

/// The ranks that a chunk covers: from its first to the one behind its last.
fn ranks(tables: Tables, chunk: &Chunk) -> ((u64, u64), (u64, u64)) {
    (tables.rank(chunk.start), chunk.end.map_or((u64::MAX, u64::MAX), |end| tables.rank(end)))
}

fn chunks_with(tables: Tables, chunks: &[Chunk], cursor: u64) -> usize {
    let rank = tables.rank(cursor);
    chunks.iter().map(|chunk| ranks(tables, chunk)).filter(|(from, upto)| *from <= rank && rank < *upto).count()
}

/// Shares of the keys by position alone.
fn even(tables: Tables) -> Scale {
    match tables {
        Tables::One => Scale::Table,
        Tables::PerSlot => Scale::of_slots((0..SLOTS).map(|_| 1)),
    }
}

fn hot_slots() -> impl Strategy<Value = Vec<HotSlot>> {
    prop::collection::btree_map(prop_oneof![0..SLOTS, slots()], 1u32..6, 0..8)
        .prop_map(|hot| hot.into_iter().map(|(slot, bits)| HotSlot { slot, bits }).collect())
}

fn slot_sets() -> impl Strategy<Value = Option<SlotSet>> {
    let ranges = prop::collection::vec((0..SLOTS, 0u16..600), 1..12);
    prop::option::of(ranges.prop_map(|ranges| {
        let mut slots = SlotSet::default();
        ranges.into_iter().for_each(|(first, more)| slots.add_range(first, first.saturating_add(more)));
        slots
    }))
}

#[test]
fn the_chunks_of_a_table_begin_and_end_where_the_documentation_of_the_order_says() {
    let chunks = Order::Backward { bits: 8 }.chunks(None);
    assert_eq!(chunks.len(), 256);
    assert_eq!(chunks[0], Chunk { start: 0b1111_1111, end: None }, "the topmost comes first");
    assert_eq!(chunks[255], Chunk { start: 0, end: Some(0b1000_0000) });
    assert_eq!(Order::Backward { bits: 0 }.chunks(None), [Chunk { start: 0, end: None }], "a plain scan");
}

/// The order of a database with one table, for a scan of at most `scanned` keys a second while `expired` expire.
fn order(keys: u64, scanned: Option<u64>, expired: f64) -> Order {
    Order::backward(keys, &Scale::Table, Speeds { scanned, expired: Some(expired), ..Speeds::default() })
}

#[test]
fn small_databases_are_scanned_in_one_go_and_slow_scans_in_more_chunks() {
    assert_eq!(order(19_999, Some(1), 1e9), Order::Backward { bits: 0 });
    assert_eq!(order(20_000, None, 1e9), Order::Backward { bits: 6 }, "as fast as it goes");
    assert_eq!(order(1_000_000, None, 1e9), Order::Backward { bits: 8 });
    assert_eq!(order(10_000_000, Some(5_000), 10_000.0), Order::Backward { bits: 8 });
    assert_eq!(order(10_000_000, Some(100), 10_000.0), Order::Backward { bits: 12 });
    assert_eq!(order(20_000, Some(1), 10_000.0), Order::Backward { bits: 9 }, "ten keys a call");
}

#[test]
fn the_less_the_servers_own_cycle_leaves_stale_the_faster_a_scan_has_to_be() {
    let slowest = |expired, hz| {
        let cycle = CycleSetting { hz, ..CycleSetting::default() };
        Order::Backward { bits: 8 }.slowest(Speeds { expired: Some(expired), cycle, ..Speeds::default() })
    };
    // At 10,000 a second and hz 10 some 22.5 % are stale, at 100 a second 9 %.
    assert!((850.0..1_000.0).contains(&slowest(10_000.0, 10)), "{}", slowest(10_000.0, 10));
    assert!((20.0..25.0).contains(&slowest(100.0, 10)), "{}", slowest(100.0, 10));
    assert!(slowest(10_000.0, 100) > 1.3 * slowest(10_000.0, 10));
    assert_eq!(slowest(0.0, 10), 0.0);
}

#[test]
fn over_a_long_path_chunks_are_larger() {
    let distant = |keys| Order::backward(keys, &Scale::Table, Speeds { is_distant: true, ..Speeds::default() });
    assert_eq!(distant(60_000), Order::Backward { bits: 3 });
    assert_eq!(distant(10_000_000), Order::Backward { bits: 8 }, "as many as ever");
}

fn blocks(keys: &[u64], speeds: Speeds) -> (u16, Vec<HotSlot>) {
    match Order::backward(u64::MAX, &Scale::of_slots(keys.iter().copied()), speeds) {
        Order::Blocks { slots, hot } => (slots, hot),
        other => panic!("a table for each slot, in the order {other:?}"),
    }
}

#[test]
fn a_slot_with_much_of_the_keys_is_divided_and_an_even_one_is_not() {
    let mut keys = vec![100; usize::from(SLOTS)];
    assert_eq!(blocks(&keys, Speeds::default()), (256, Vec::new()));
    keys[7_000] = 100_000_000;
    let hot = [HotSlot { slot: 7_000, bits: 8 }];
    assert_eq!(blocks(&keys, Speeds::default()).1, hot, "nearly all keys: as fine as one table");
    keys[7_001] = 20_000_000;
    assert_eq!(blocks(&keys, Speeds::default()).1[1], HotSlot { slot: 7_001, bits: 6 });
    let few = Scale::of_slots((0..SLOTS).map(|slot| u64::from(slot < 19_999 / 2) * 2));
    assert_eq!(Order::backward(u64::MAX, &few, Speeds::default()), Order::Forward, "too few to matter");
}

#[test]
fn slow_scans_of_slots_have_smaller_blocks() {
    let keys = vec![1_000; usize::from(SLOTS)];
    let slots =
        |scanned| blocks(&keys, Speeds { scanned: Some(scanned), expired: Some(10_000.0), ..Speeds::default() }).0;
    assert_eq!((slots(1_000), slots(500), slots(10), slots(1)), (256, 128, 2, 1));
}

#[test]
fn only_the_slots_asked_for_are_visited() {
    let only: SlotSet = "5-6,300,16383".parse().expect("slots");
    let chunks = Order::Blocks { slots: 256, hot: vec![HotSlot { slot: 6, bits: 1 }, HotSlot { slot: 7, bits: 1 }] };
    let chunk = |start: u64, end: Option<u64>| Chunk { start, end };
    let half = 1 << SLOT_BITS;
    let expected = [
        chunk(16_383, None),
        chunk(300, Some(512)),
        chunk(half | 6, Some(7)),
        chunk(6, Some(half | 6)),
        chunk(5, Some(6)),
    ];
    assert_eq!(chunks.chunks(Some(&only)), expected);
}

/// A call that met as many keys as it asked for, all of them alive.
fn call(count: u32, cursor: u64) -> Call {
    Call { count, cursor, returned: u64::from(count), visited: u64::from(count) }
}

fn in_chunks(bits: u32) -> (Walk, Position) {
    let mut walk = Walk::new(&Order::Backward { bits }, Scale::Table, None);
    let first = walk.take().expect("a chunk");
    (walk, first)
}

#[test]
fn a_cursor_that_does_not_advance_is_opaque() {
    let (mut walk, first) = in_chunks(1);
    assert_eq!(first, Position { chunk: 0, cursor: 1 });
    let second = Position { chunk: 0, cursor: 0b11 };
    assert_eq!(walk.advance(first, call(10, 0b11)), Advance::Within(second));
    for cursor in [0b11, 0b101, 1] {
        assert_eq!(walk.clone().advance(second, call(10, cursor)), Advance::Opaque, "{cursor}");
    }
    assert_eq!(walk.advance(second, call(10, 0)), Advance::Complete);
    assert!(!walk.is_done(), "0 ends the chunk only");
    let last = walk.take().expect("the chunk before");
    assert_eq!(
        (last, walk.advance(last, call(10, 1)), walk.is_done()),
        (Position { chunk: 1, cursor: 0 }, Advance::Complete, true)
    );
    assert_eq!(walk.take(), None);
}

#[test]
fn the_last_call_of_a_chunk_asks_for_what_is_left_of_it() {
    let (walk, first) = in_chunks(8);
    assert_eq!(walk.max_count(first, 1_000_000), 1_953, "half a chunk");
    let near = Position { chunk: 0, cursor: ((255.9 / 256.0 * 2f64.powi(64)) as u64).reverse_bits() };
    assert_eq!(walk.max_count(near, 1_000_000), 391, "a tenth of a chunk");
    assert_eq!(walk.max_count(first, 100), 10, "as few as SCAN visits by default");
    let (whole, first) = in_chunks(0);
    assert_eq!(whole.max_count(first, 100), u32::MAX, "one chunk has no limit");
}

#[test]
fn a_table_with_few_keys_for_its_size_takes_a_larger_count() {
    let (mut walk, first) = in_chunks(8);
    let before = walk.max_count(first, 30_000);
    for _ in 0..3 {
        walk.advance(first, Call { visited: 1, ..call(before, 1) });
    }
    assert_eq!(walk.max_count(first, 30_000), before * 8);
    walk.advance(first, call(before, 1));
    assert_eq!(walk.max_count(first, 30_000), before * 4);
}

/// Scatters numbers over all bits, like the hash of a server (the finalizer of SplitMix64).
fn scatter(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[test]
fn a_static_table_is_returned_with_few_repeats_and_they_are_estimated() {
    const KEYS: u64 = 300_000;
    let mut keyspace = Keyspace::new(Tables::One);
    keyspace.table(0).resize(18);
    keyspace.table(0).rehash(1);
    (1..=KEYS).for_each(|number| keyspace.table(0).insert(scatter(number)));
    let mut walk = Walk::new(&order(KEYS, None, 0.0), Scale::Table, None);
    let (mut returned, mut repeated) = (0, 0.0);
    while let Some(mut position) = walk.take() {
        loop {
            let count = walk.max_count(position, KEYS).min(500);
            let (cursor, keys) = keyspace.scan(position.cursor, count);
            let found = keys.len() as u64;
            let call = Call { count, cursor, returned: found, visited: found };
            returned += found;
            repeated += walk.repeated(position, call);
            match walk.advance(position, call) {
                Advance::Within(next) => position = next,
                Advance::Complete => break,
                Advance::Opaque => panic!("{cursor} after {position:?}"),
            }
        }
    }
    assert!(walk.is_done() && returned < KEYS * 103 / 100, "{returned} of {KEYS}");
    let wrong = (returned as f64 - repeated - KEYS as f64).abs();
    assert!(wrong < 4.0 * repeated.sqrt(), "{returned} returned, {repeated} of them estimated to be repeats");
}

/// What happens to a keyspace between two calls.
#[derive(Debug, Clone)]
enum Event {
    Resize(u32),
    Rehash(u64),
    Insert(u16, u64),
}

/// Slots at the edges of blocks and in the middle of one: few, so that they hold many keys each.
fn slots() -> impl Strategy<Value = u16> {
    prop::sample::select(&[0, 3, 255, 256, 9_000, SLOTS - 1][..])
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        (1u32..12).prop_map(Event::Resize),
        (1u64..300).prop_map(Event::Rehash),
        (slots(), any::<u64>()).prop_map(|(slot, hash)| Event::Insert(slot, hash)),
    ];
    prop::collection::vec(event, 0..300)
}

/// Scans a keyspace over some connections in turn while events happen to it, reclaiming the keys of `stale` that it meets, and
/// returns those that were met. Ends early after `calls`.
fn scan(
    keyspace: &mut Keyspace,
    walk: &mut Walk,
    connections: usize,
    events: Vec<Event>,
    stale: &BTreeSet<(u16, u64)>,
    calls: usize,
) -> BTreeSet<(u16, u64)> {
    let (mut met, mut events, mut last) = (BTreeSet::new(), events.into_iter(), walk.fraction());
    let mut positions: VecDeque<Position> = (0..connections).filter_map(|_| walk.take()).collect();
    for _ in 0..calls {
        let Some(position) = positions.pop_front() else { break };
        let count = walk.max_count(position, 2_000).min(100);
        let (cursor, keys) = keyspace.scan(position.cursor, count);
        let found = keys.len() as u64;
        for key in keys {
            if stale.contains(&key) {
                keyspace.table(key.0).remove(key.1);
            }
            met.insert(key);
        }
        match walk.advance(position, Call { count, cursor, returned: found, visited: found }) {
            Advance::Within(next) => positions.push_back(next),
            Advance::Complete => positions.extend(walk.take()),
            Advance::Opaque => panic!("{cursor} after {position:?}"),
        }
        let fraction = walk.fraction();
        assert!(fraction >= last - 1e-9 && fraction <= 1.0, "{fraction} after {last}");
        last = fraction;
        match events.next() {
            Some(Event::Resize(bits)) => keyspace.tables().for_each(|table| table.resize(bits)),
            Some(Event::Rehash(buckets)) => keyspace.tables().for_each(|table| table.rehash(buckets)),
            Some(Event::Insert(slot, hash)) => {
                let slot = if walk.tables == Tables::One { 0 } else { slot };
                keyspace.table(slot).insert(hash);
            }
            None => {}
        }
    }
    assert_eq!(walk.is_done(), positions.is_empty());
    assert!(!walk.is_done() || last == 1.0);
    met
}

fn keys_of_one_table() -> impl Strategy<Value = BTreeSet<(u16, u64)>> {
    prop::collection::btree_set((Just(0u16), any::<u64>()), 0..400)
}

fn keys_of_slots() -> impl Strategy<Value = BTreeSet<(u16, u64)>> {
    prop::collection::btree_set((slots(), any::<u64>()), 0..400)
}

fn load(tables: Tables, keys: &BTreeSet<(u16, u64)>, bits: u32) -> Keyspace {
    let mut keyspace = Keyspace::new(tables);
    for (slot, hash) in keys {
        keyspace.table(*slot).resize(bits);
        keyspace.table(*slot).rehash(1);
        keyspace.table(*slot).insert(*hash);
    }
    keyspace
}

proptest! {
    #[test]
    fn every_position_of_a_table_of_any_size_lies_in_exactly_one_chunk(bits in 0u32..=12, position in any::<u64>(), size in 1u32..48) {
        let chunks = Order::Backward { bits }.chunks(None);
        let cursor = position & ((1 << size) - 1);
        prop_assert_eq!(chunks_with(Tables::One, &chunks, cursor), 1);
        prop_assert_eq!(chunks_with(Tables::One, &chunks, position), 1);
        for pair in chunks.windows(2) {
            prop_assert_eq!(pair[1].end, Some(pair[0].start), "no gap and no overlap");
        }
    }

    #[test]
    fn every_position_of_every_slot_lies_in_exactly_one_chunk(
        block in 0u32..=8, hot in hot_slots(), only in slot_sets(), slot in 0..SLOTS, position in any::<u64>(), size in 1u32..48,
    ) {
        let order = Order::Blocks { slots: 1 << block, hot };
        let position = position & ((1 << size) - 1);
        let within = only.as_ref().is_none_or(|only| only.contains(slot));
        let found = chunks_with(Tables::PerSlot, &order.chunks(only.as_ref()), position << SLOT_BITS | u64::from(slot));
        // A block of slots that are asked for may have others between them, which the walk passes over.
        prop_assert!(if within { found == 1 } else { found <= 1 }, "{found} chunks");
    }

    #[test]
    fn a_scan_in_chunks_meets_every_key_while_the_table_grows_and_shrinks(
        bits in 0u32..=8, size in 1u32..12, keys in keys_of_one_table(), events in events(), every in 2usize..5,
        connections in 1usize..5,
    ) {
        let stale: BTreeSet<_> = keys.iter().copied().step_by(every).collect();
        let mut keyspace = load(Tables::One, &keys, size);
        let mut walk = Walk::new(&Order::Backward { bits }, Scale::Table, None);
        let met = scan(&mut keyspace, &mut walk, connections, events, &stale, usize::MAX);
        prop_assert!(walk.is_done() && met.is_superset(&keys), "{} of {} keys", met.len(), keys.len());
    }

    #[test]
    fn a_scan_in_blocks_of_slots_meets_every_key_of_the_slots_asked_for(
        block in 6u32..=8, hot in hot_slots(), size in 1u32..12, keys in keys_of_slots(), events in events(),
        only in slot_sets(), connections in 1usize..5,
    ) {
        let stale: BTreeSet<_> = keys.iter().copied().step_by(3).collect();
        let mut keyspace = load(Tables::PerSlot, &keys, size);
        let asked = |slot: u16| only.as_ref().is_none_or(|only| only.contains(slot));
        let wanted: BTreeSet<_> = keys.iter().copied().filter(|(slot, _)| asked(*slot)).collect();
        let mut walk = Walk::new(&Order::Blocks { slots: 1 << block, hot }, even(Tables::PerSlot), only.clone());
        let met = scan(&mut keyspace, &mut walk, connections, events, &stale, usize::MAX);
        prop_assert!(walk.is_done() && met.is_superset(&wanted), "{} of {} keys", met.len(), wanted.len());
    }

    #[test]
    fn an_interrupted_walk_resumes_where_its_positions_say_with_another_number_of_connections(
        bits in 0u32..=6, keys in keys_of_one_table(), calls in 0usize..40, connections in 1usize..5, later in 1usize..5,
    ) {
        let mut keyspace = load(Tables::One, &keys, 9);
        let order = Order::Backward { bits };
        let mut walk = Walk::new(&order, Scale::Table, None);
        let mut met = scan(&mut keyspace, &mut walk, connections, Vec::new(), &BTreeSet::new(), calls);
        let (begun, positions) = walk.positions();
        let resumed = Walk::new(&order, Scale::Table, None).resume(begun, &positions);
        prop_assert_eq!(resumed.is_none(), walk.is_done(), "nothing to resume");
        if let Some(mut resumed) = resumed {
            prop_assert!((resumed.fraction() - walk.fraction()).abs() < 1e-9);
            met.extend(scan(&mut keyspace, &mut resumed, later, Vec::new(), &BTreeSet::new(), usize::MAX));
            prop_assert!(resumed.is_done());
        }
        prop_assert!(met.is_superset(&keys));
    }
}

#[test]
fn blocks_of_slots_without_keys_are_passed_over() {
    let scale = Scale::of_slots((0..SLOTS).map(|slot| u64::from(slot % 4_096 == 300)));
    let begun = |scale: Scale| {
        let mut walk = Walk::new(&Order::Blocks { slots: 256, hot: Vec::new() }, scale, None);
        std::iter::from_fn(|| walk.take()).map(|position| position.cursor).collect::<Vec<_>>()
    };
    assert_eq!(begun(scale), [12_544, 8_448, 4_352, 256]);
    assert_eq!(begun(Scale::of_even_slots(|slot| slot == 300)).len(), 64, "the keys were not counted");
}

#[test]
fn a_checkpoint_with_chunks_that_its_order_does_not_have_is_not_resumed() {
    let resume = |begun, chunk| {
        let walk = Walk::new(&Order::Backward { bits: 2 }, Scale::Table, None);
        walk.resume(begun, &[Position { chunk, cursor: 1 }]).is_some()
    };
    assert!(resume(4, 3) && resume(1, 0));
    assert!(!resume(5, 0) && !resume(1, 1));
}
