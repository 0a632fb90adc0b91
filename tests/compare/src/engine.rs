//! Our engine as one more policy on a trace: real memory, real shards and size classes, one request after the other.

use hotspare::{Cache, Config, Eviction, Expiry};

use crate::policies::Policy;
use crate::workload;

/// The least memory that the engine takes.
const MEMORY_BYTES_MIN: usize = 1 << 20;

pub struct Engine {
    cache: Cache,
    value: Vec<u8>,
    is_sized: bool,
}

fn made(bytes: usize, eviction: Eviction) -> Cache {
    let config =
        Config::new().memory_bytes_max(bytes).item_bytes_max(bytes / 4).eviction(eviction).hash_seed(11);
    Cache::new(config).expect("the settings are in range")
}

impl Engine {
    /// For a trace with sizes: its bytes are the memory limit. For one without: as much memory as holds `capacity`
    /// values of one size, found by filling; `None` where so few items would be more than a quarter of it each.
    pub fn new(eviction: Eviction, capacity: u64, is_sized: bool) -> Option<Engine> {
        let capacity = usize::try_from(capacity).ok()?;
        if is_sized {
            let bytes = capacity.max(MEMORY_BYTES_MIN);
            return Some(Engine { cache: made(bytes, eviction), value: vec![7; 16 << 20], is_sized });
        }
        if capacity < 40 {
            return None;
        }
        // At least 2 MiB, so that half-used pages count for little.
        let value_bytes = ((2 << 20) / capacity).max(100);
        let value = vec![7; value_bytes];
        let mut bytes = (capacity * (value_bytes + 50)).max(MEMORY_BYTES_MIN);
        for _ in 0..4 {
            let cache = made(bytes, eviction);
            for number in 0..3 * capacity as u64 {
                cache.set(workload::key(number), &value, Expiry::Never).expect("a full cache evicts");
            }
            let held = cache.stats().items as usize;
            bytes = (bytes as f64 * capacity as f64 / held as f64).max(MEMORY_BYTES_MIN as f64) as usize;
        }
        Some(Engine { cache: made(bytes, eviction), value, is_sized })
    }
}

impl Policy for Engine {
    fn request(&mut self, key: u32, size: u32) -> bool {
        let key = workload::key(u64::from(key));
        if self.cache.read(key, |_| ()).expect("a key of 16 bytes").is_some() {
            return true;
        }
        let len = if self.is_sized { (size as usize).min(self.value.len()) } else { self.value.len() };
        // A value that is too large for this cache is no error here: it is just never a hit.
        let _ = self.cache.set(key, &self.value[..len], Expiry::Never);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Random;

    #[test]
    fn an_engine_for_so_many_items_holds_that_many_under_mixed_requests() {
        let mut random = Random::new(9);
        for eviction in [Eviction::Lru, Eviction::S3Fifo] {
            for capacity in [40, 70, 150, 400, 1000, 5000] {
                let mut engine = Engine::new(eviction, capacity, false).expect("40 are enough");
                for _ in 0..20 * capacity {
                    // Some keys more often than others, of four times as many as fit.
                    let key = random.below(4 * capacity).min(random.below(4 * capacity));
                    engine.request(key as u32, 1);
                }
                let held = engine.cache.stats().items as f64 / capacity as f64;
                assert!((0.97..1.03).contains(&held), "{eviction:?}, {capacity}: {held}");
            }
        }
    }
}
