//! The hash of a key: seeded, the same in all shards and, after a handshake, on all nodes of a group.
//!
//! Lives here: the hash function and its seed. Not here: which bits choose a bucket (see `index`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rapidhash::v3::{RapidSecrets, rapidhash_v3_seeded};

/// A handle on one seed; clones share it.
///
/// 1. The eight words follow from one seed. While [`KeyHasher::set_seed`] runs a hash may be of neither seed: the
///    caller locks every shard, sets the seed, clears the shards, and each operation that hashed before it had
///    its lock hashes again if [`KeyHasher::seed`] has changed meanwhile.
#[derive(Clone)]
pub(crate) struct KeyHasher(Arc<Words>);

/// One cache line, read on each hash and never written in normal operation.
#[repr(align(64))]
struct Words {
    seed: AtomicU64,
    premixed: AtomicU64,
    secrets: [AtomicU64; 7],
}

impl KeyHasher {
    pub(crate) fn new(seed: u64) -> KeyHasher {
        let hasher = KeyHasher(Arc::new(Words {
            seed: AtomicU64::new(0),
            premixed: AtomicU64::new(0),
            secrets: Default::default(),
        }));
        hasher.set_seed(seed);
        hasher
    }

    /// The hash of a key under the seed of this moment.
    pub(crate) fn hash(&self, key: &[u8]) -> u64 {
        let mut secrets = [0; 7];
        for (secret, word) in secrets.iter_mut().zip(&self.0.secrets) {
            *secret = word.load(Ordering::Relaxed);
        }
        let secrets = RapidSecrets { seed: self.0.premixed.load(Ordering::Relaxed), secrets };
        rapidhash_v3_seeded(key, &secrets)
    }

    /// The seed that was set last.
    pub(crate) fn seed(&self) -> u64 {
        self.0.seed.load(Ordering::Acquire)
    }

    /// Another seed: every shard must be empty, or be cleared before it is used again.
    pub(crate) fn set_seed(&self, seed: u64) {
        let secrets = RapidSecrets::seed(seed);
        for (word, secret) in self.0.secrets.iter().zip(secrets.secrets) {
            word.store(secret, Ordering::Relaxed);
        }
        self.0.premixed.store(secrets.seed, Ordering::Relaxed);
        self.0.seed.store(seed, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_gives_the_same_hash_and_another_seed_another() {
        let (one, two) = (KeyHasher::new(7), KeyHasher::new(8));
        assert_ne!(one.hash(b"key"), two.hash(b"key"));
        two.set_seed(7);
        assert_eq!(one.hash(b"key"), two.hash(b"key"));
        assert_eq!(two.seed(), 7);
    }
}
