//! The optimum for items of one size: evicts what is wanted latest. With sizes it is a good bound in practice, not exact.

use std::collections::BTreeSet;

/// Hits of the optimum over a whole trace.
pub fn hits(requests: &[u32], sizes: &[u32], capacity: u64) -> u64 {
    const NEVER: u64 = u64::MAX;
    let mut next_of_key = vec![NEVER; sizes.len()];
    let mut next = vec![NEVER; requests.len()];
    for (at, key) in requests.iter().enumerate().rev() {
        next[at] = next_of_key[*key as usize];
        next_of_key[*key as usize] = at as u64;
    }
    let mut cached: BTreeSet<(u64, u32)> = BTreeSet::new();
    let mut wanted_at = vec![NEVER; sizes.len()];
    let mut is_in = vec![false; sizes.len()];
    let (mut bytes, mut hits) = (0_u64, 0);
    for (at, key) in requests.iter().enumerate() {
        let (index, size) = (*key as usize, u64::from(sizes[*key as usize]));
        if is_in[index] {
            hits += 1;
            cached.remove(&(wanted_at[index], *key));
        } else if next[at] == NEVER || size > capacity {
            continue;
        } else {
            bytes += size;
            is_in[index] = true;
        }
        wanted_at[index] = next[at];
        cached.insert((next[at], *key));
        while bytes > capacity {
            let (_, latest) = cached.pop_last().expect("bytes are those of cached items");
            is_in[latest as usize] = false;
            bytes -= u64::from(sizes[latest as usize]);
        }
    }
    hits
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_loop_longer_than_the_cache_hits_as_often_as_fits() {
        let requests: Vec<u32> = (0..40).map(|at| at % 4).collect();
        // Of each round of four, a cache of three keeps three: what is wanted latest may be the new one itself.
        assert_eq!(super::hits(&requests, &[1; 4], 4), 36);
        assert_eq!(super::hits(&requests, &[1; 4], 3), 27);
    }
}
