//! How items are cut, and where their keys lie.

use super::*;
use crate::storage::cuts::Cuts;

fn footprints(value_bytes: usize) -> [Footprint; 2] {
    [Footprint::new(16, value_bytes, 0, 0), Footprint::new(16, value_bytes, 1, 1)]
}

fn slabs(page_bytes: usize) -> Slabs {
    Slabs::new(Memory::reserve(page_bytes, 1 << 20).unwrap())
}

#[test]
fn no_item_wastes_more_than_a_sixteenth_of_its_chunks() {
    for page_bytes in [4 << 10, 16 << 10, 64 << 10] {
        let slabs = slabs(page_bytes);
        for footprint in (0..4 * page_bytes).step_by(13).flat_map(footprints) {
            let cuts = Cuts::new(&slabs, footprint);
            let held: usize = cuts.iter().map(|(class, count)| slabs.chunk_bytes(class) * count).sum();
            let chunks: usize = cuts.iter().map(|(_, count)| count).sum();
            let item = footprint.bytes_in_one_chunk(slabs.memory());
            let wasted = held - item - (chunks - 1) * TAIL_HEADER_BYTES;
            assert!(wasted <= (item / 16).max(8) + 4, "{item} bytes waste {wasted}: {cuts:?}");
        }
    }
}

#[test]
fn longest_key_lies_whole_in_the_first_chunk() {
    for page_bytes in [4 << 10, 64 << 10] {
        let slabs = slabs(page_bytes);
        for value_bytes in (0..3 * page_bytes).step_by(7) {
            let footprint = Footprint::new(1024, value_bytes, 1, 1);
            let cuts = Cuts::new(&slabs, footprint);
            let (first, _) = cuts.iter().next().unwrap();
            let is_chained = cuts.iter().map(|(_, count)| count).sum::<usize>() > 1;
            let room = slabs.chunk_bytes(first) - slabs.memory().trailer_bytes();
            assert!(room >= Shape(footprint.shape(is_chained)).key_at() + 1024);
        }
    }
}

#[test]
fn key_lies_behind_each_part_of_the_header_that_is_there() {
    for bits in 0..32 {
        let shape = Shape(bits << 5);
        let next_bytes = if shape.has(HAS_NEXT) { 4 } else { 0 };
        assert_eq!(shape.key_at(), shape.next_at() + next_bytes);
    }
}

#[test]
fn keys_that_differ_in_any_one_byte_are_not_the_same() {
    for bytes in 0..70 {
        let key: Vec<u8> = (0..bytes).collect();
        assert!(same(&key, &key.clone()), "{bytes}");
        for at in 0..key.len() {
            let mut other = key.clone();
            other[at] ^= 0x80;
            assert!(!same(&key, &other) && !same(&other, &key), "{bytes} bytes, at {at}");
        }
    }
}
