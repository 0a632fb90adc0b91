//! Claims about the index alone: entries are numbers, a number's hash is a fixed mixture.

use super::*;

fn chunk(number: u32) -> ChunkRef {
    ChunkRef::from_link(number).unwrap()
}

fn hash(chunk: ChunkRef) -> u64 {
    let hash = u64::from(chunk.get()).wrapping_mul(0xd134_2543_de82_ef95);
    hash ^ hash >> 29
}

fn insert(index: &mut Index, number: u32) {
    while index.pages_wanted() > 0 {
        index.add_segment();
    }
    index.insert(hash(chunk(number)), chunk(number), hash);
}

#[test]
fn growth_moves_at_most_48_entries_an_insertion() {
    let mut index = Index::new(4 << 10);
    for number in 1..=100_000 {
        insert(&mut index, number);
        if number % 9_999 == 0 {
            index.check_invariants(hash);
        }
    }
    assert!(index.bucket_count >= 100_000 / LOAD_MAX);
    assert!(index.entries_moved_max() <= 48, "{} entries moved at once", index.entries_moved_max());
    let bytes = index.page_count() * (4 << 10);
    assert!(bytes <= 100_000 * 11, "{} bytes an entry", bytes as f64 / 1e5);
    for number in 1..=100_000 {
        assert_eq!(index.find(hash(chunk(number)), |found| found == chunk(number)), Some(chunk(number)));
    }
    assert_eq!(index.find(hash(chunk(100_001)), |found| found == chunk(100_001)), None);
}

#[test]
fn emptied_index_gives_its_home_segments_back() {
    let mut index = Index::new(4 << 10);
    for number in 1..=50_000 {
        insert(&mut index, number);
    }
    let pages = index.page_count();
    let mut freed = 0;
    for number in 1..=50_000 {
        freed += index.remove(hash(chunk(number)), chunk(number));
        if number % 4_999 == 0 {
            index.check_invariants(hash);
        }
    }
    index.check_invariants(hash);
    assert_eq!(index.segments.len(), 1);
    assert_eq!(index.page_count() + freed, pages);
}

#[test]
fn replaced_entry_is_found_at_its_new_place() {
    let mut index = Index::new(4 << 10);
    insert(&mut index, 5);
    index.replace(hash(chunk(5)), chunk(5), chunk(77));
    assert_eq!(index.find(hash(chunk(5)), |_| true), Some(chunk(77)));
    index.remove(hash(chunk(5)), chunk(77));
    assert_eq!(index.find(hash(chunk(5)), |_| true), None);
}

#[test]
fn each_slot_matches_its_own_tag_only() {
    let bucket = Bucket { tags: [1, 2, 3, 128, 129, 255, 1, 0, 0, 0, 0, 0], ..EMPTY };
    let slots = |tag| -> Vec<usize> {
        let matches = bucket.slots_with(tag);
        (0..16).filter(|slot| matches >> (slot * 8) & 0xff != 0).collect()
    };
    assert_eq!(slots(1), [0, 6]);
    assert_eq!(slots(2), [1]);
    assert_eq!(slots(129), [4]);
    assert_eq!(slots(255), [5]);
    assert_eq!(slots(7), [0usize; 0]);
}
