//! Claims about the index alone: entries are numbers, a number's hash is a fixed mixture.

use std::sync::Arc;

use super::*;
use crate::storage::memory::Memory;

fn chunk(number: u32) -> ChunkRef {
    ChunkRef::from_link(number).unwrap()
}

fn hash(chunk: ChunkRef) -> u64 {
    let hash = u64::from(chunk.get()).wrapping_mul(0xd134_2543_de82_ef95);
    hash ^ hash >> 29
}

fn index() -> Index {
    let memory = Memory::reserve(4 << 10, 64 << 20).unwrap();
    let tables: Arc<[Table]> = Arc::new([Table::new(memory, 4_000)]);
    Index::new(Tables::from(tables), 0)
}

fn insert(index: &mut Index, number: u32) {
    let chunk = chunk(number);
    while index.pages_wanted(hash(chunk)) > 0 {
        // Pages are numbered as they come: none is used twice, none comes back.
        index.add_page(index.page_count() as u32);
    }
    let spot = index.begin_store(index.look_ahead(hash(chunk)), |_| false);
    assert!(index.finish_store(spot, hash(chunk), chunk).is_none());
    index.count_added(hash);
}

fn remove(index: &mut Index, number: u32) -> usize {
    assert!(index.remove_if(hash(chunk(number)), chunk(number), || Removal::Remove));
    usize::from(index.shrink().is_some())
}

#[test]
fn growth_moves_at_most_48_entries_an_insertion() {
    let mut index = index();
    for number in 1..=100_000 {
        insert(&mut index, number);
        if number % 9_999 == 0 {
            index.check_invariants(hash);
        }
    }
    assert!(index.count() >= 100_000 / LOAD_MAX);
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
    let mut index = index();
    for number in 1..=50_000 {
        insert(&mut index, number);
    }
    let pages = index.page_count();
    let mut freed = 0;
    for number in 1..=50_000 {
        freed += remove(&mut index, number);
        if number % 4_999 == 0 {
            index.check_invariants(hash);
        }
    }
    index.check_invariants(hash);
    assert_eq!(index.home_pages, 1);
    assert_eq!(index.page_count() + freed, pages);
}

#[test]
fn replaced_entry_is_found_at_its_new_place() {
    let mut index = index();
    insert(&mut index, 5);
    index.relocate(hash(chunk(5)), chunk(5), || chunk(77));
    assert_eq!(index.find(hash(chunk(5)), |_| true), Some(chunk(77)));
    assert!(!index.remove_if(hash(chunk(5)), chunk(77), || Removal::Keep));
    assert!(index.remove_if(hash(chunk(5)), chunk(77), || Removal::RemoveAsGhost));
    let spot = index.begin_store(index.look_ahead(hash(chunk(5))), |_| false);
    assert!(spot.is_ghost() && spot.present().is_none());
    assert_eq!(index.finish_store(spot, hash(chunk(5)), chunk(5)), None);
    index.count_added(hash);
    assert!(index.remove_if(hash(chunk(5)), chunk(5), || Removal::Remove));
    assert_eq!(index.find(hash(chunk(5)), |_| true), None);
}

#[test]
fn stored_again_an_entry_takes_the_place_of_the_old_one() {
    let mut index = index();
    insert(&mut index, 5);
    let spot = index.begin_store(index.look_ahead(hash(chunk(5))), |found| found == chunk(5));
    assert!(!spot.is_ghost() && spot.present() == Some(chunk(5)));
    assert_eq!(index.finish_store(spot, hash(chunk(5)), chunk(6)), Some(chunk(5)));
    assert_eq!((index.len(), index.find(hash(chunk(5)), |_| true)), (1, Some(chunk(6))));
}

#[test]
fn cleared_index_is_empty_and_gives_all_pages_back() {
    let mut index = index();
    for number in 1..=5_000 {
        insert(&mut index, number);
    }
    let pages = index.page_count();
    let freed = index.clear();
    assert_eq!((freed.len(), index.len(), index.page_count()), (pages, 0, 0));
    assert_eq!(index.find(hash(chunk(1)), |_| true), None);
    index.check_invariants(hash);
}
