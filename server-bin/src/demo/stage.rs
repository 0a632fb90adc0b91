//! The four caches of a demonstration, which see the same requests, and the kill of one of them.
//!
//! Lives here: the nodes, a request to all of them, the values. Not here: what is played when (see `play`).

use std::time::{Duration, Instant};

use hotspare::{Cache, Config, Expiry, LinkState, ReplicationConfig};
use hotspare_tcp::{Node, Options};

use super::{Course, Joins, Ratios};

/// How long the spare may take to attach.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(10);

/// The four caches that see the same requests.
pub(super) struct Stage {
    primary: Option<(Cache, Node)>,
    /// None until it joins.
    spare: Option<(Cache, Node)>,
    joined_late: bool,
    never_failed: Cache,
    came_back_empty: Cache,
    config: Config,
    spare_config: Config,
    adjust: fn(ReplicationConfig) -> ReplicationConfig,
    /// The largest item that the nodes take, in bytes.
    pub(super) item_bytes_max: usize,
    /// Evictions for each set before the kill: the lesser of the primary's and its spare's.
    evictions_per_set: f64,
    /// Values read that were not the key's.
    pub(super) wrong_values: u64,
    /// Counts of hits, in the order of [`Ratios`].
    hits: [u64; 3],
}

impl Stage {
    /// Sets up all nodes but the spare, each with so many bytes and the same hash seed if the course doesn't say otherwise.
    pub(super) fn set(capacity_bytes: u64, course: &Course) -> Result<Stage, String> {
        let item_bytes_max = (1 << 20).min(capacity_bytes as usize / 2);
        let config = Config::new()
            .hash_seed(course.seed)
            .memory_bytes_max(capacity_bytes as usize)
            .item_bytes_max(item_bytes_max);
        let of_node = |config: &Config, node: u64| match course.seeds_apart {
            true => config.clone().hash_seed(course.seed << 8 | node),
            false => config.clone(),
        };
        Ok(Stage {
            primary: Some(start(&of_node(&config, 0), (course.adjust)(ReplicationConfig::primary()))?),
            spare: None,
            joined_late: course.joins != Joins::AtStart,
            never_failed: new_cache(&of_node(&config, 1))?,
            came_back_empty: new_cache(&of_node(&config, 2))?,
            spare_config: of_node(&config, 3),
            adjust: course.adjust,
            config,
            item_bytes_max,
            evictions_per_set: 0.0,
            wrong_values: 0,
            hits: [0; 3],
        })
    }

    /// Starts the spare, which fills itself from the primary while requests go on.
    pub(super) fn start_spare(&mut self) -> Result<(), String> {
        let address = self.primary.as_ref().and_then(|(_, node)| node.listen_address());
        let address = address.ok_or("the primary is dead")?.to_string();
        let replication = (self.adjust)(ReplicationConfig::replica_of(address));
        self.spare = Some(start(&self.spare_config, replication)?);
        Ok(())
    }

    /// Whether the spare has all items and follows every change.
    pub(super) fn spare_streams(&self) -> bool {
        self.spare.as_ref().is_some_and(|(spare, _)| spare.status().link == LinkState::Streaming)
    }

    /// Waits until it does.
    pub(super) fn await_spare(&self) -> Result<(), String> {
        let end = Instant::now() + ATTACH_TIMEOUT;
        while !self.spare_streams() {
            if Instant::now() > end {
                let why = self.spare.as_ref().and_then(|(spare, _)| spare.status().last_error);
                return Err(format!("the spare did not attach: {why:?}"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Waits until the spare is at most so many writes behind its primary, if there are both and it has been taken.
    pub(super) fn await_position(&self, behind_max: u64) -> Result<(), String> {
        let (Some((primary, _)), Some((spare, _))) = (&self.primary, &self.spare) else { return Ok(()) };
        let (written, end) = (primary.status().seq, Instant::now() + ATTACH_TIMEOUT);
        loop {
            let status = spare.status();
            let is_taken = matches!(status.link, LinkState::Installing | LinkState::Streaming);
            // In the middle of a full copy its position is that of the log beside it.
            if !is_taken || status.seq + behind_max >= written {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(format!("the spare did not follow: {} of {written} writes", status.seq));
            }
            std::thread::sleep(Duration::from_micros(50));
        }
    }

    /// A read at each node, and where it missed a set.
    pub(super) fn request(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let pair = self.primary.as_ref().or(self.spare.as_ref()).ok_or("the pair is dead")?;
        for (index, cache) in [&pair.0, &self.never_failed, &self.came_back_empty].into_iter().enumerate() {
            match cache.read(key, |item| is_value_of(key, value, &item.value)) {
                Ok(Some(right)) => {
                    self.hits[index] += 1;
                    self.wrong_values += u64::from(!right);
                }
                Ok(None) => match cache.set(key, value, Expiry::Never) {
                    // A value above the limit is not cached, on any of them.
                    Ok(_) | Err(hotspare::WriteError::ItemTooLarge { .. }) => {}
                    Err(why) => return Err(why.to_string()),
                },
                Err(why) => return Err(why.to_string()),
            }
        }
        Ok(())
    }

    /// Kills the primary without warning and promotes the spare; how many writes were lost, and how long it took.
    pub(super) fn fail_over(&mut self) -> Result<(u64, Duration), String> {
        let Some((primary, node)) = self.primary.take() else { return Err("it is dead already".to_owned()) };
        let Some((spare, _)) = &self.spare else { return Err("there is no spare".to_owned()) };
        let (stats, spare_stats) = (primary.stats(), spare.stats());
        // A spare that joined later has not seen what left before.
        let evictions =
            if self.joined_late { stats.evictions } else { stats.evictions.min(spare_stats.evictions) };
        self.evictions_per_set = evictions as f64 / stats.stores.max(1) as f64;
        let written = primary.status().seq;
        let killed = Instant::now();
        drop(node);
        drop(primary);
        let held = spare.status().seq;
        // Also if it was being copied anew, having fallen behind: there is no other, and its windows will show it.
        spare.promote(true).map_err(|why| why.to_string())?;
        let took = killed.elapsed();
        self.came_back_empty = new_cache(&self.config)?;
        Ok((written.saturating_sub(held), took))
    }

    /// Evictions for each set: the least of the node that never failed, and of the primary and its spare until the kill.
    pub(super) fn evictions_per_set(&self) -> f64 {
        let stats = self.never_failed.stats();
        (stats.evictions as f64 / stats.stores.max(1) as f64).min(self.evictions_per_set)
    }

    /// The hit ratios since the last call, over so many requests.
    pub(super) fn take_ratios(&mut self, requests: u64) -> Ratios {
        let percent = |hits: u64| 100.0 * hits as f64 / requests.max(1) as f64;
        let [hotspare, never_failed, came_back_empty] = std::mem::take(&mut self.hits).map(percent);
        Ratios { hotspare, never_failed, came_back_empty }
    }
}

fn new_cache(config: &Config) -> Result<Cache, String> {
    Cache::new(config.clone()).map_err(|why| why.to_string())
}

/// A node of the pair, at a port of its own.
fn start(config: &Config, replication: ReplicationConfig) -> Result<(Cache, Node), String> {
    let cache = new_cache(&config.clone().replication(replication))?;
    let loopback = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let node = Node::start(&cache, Options::new().listen(loopback)).map_err(|why| why.to_string())?;
    Ok((cache, node))
}

/// Whether a stored value is the key's. A trace may give a key another size each time: then it is another length of
/// the same bytes.
fn is_value_of(key: &[u8], expected: &[u8], stored: &hotspare::Value<'_>) -> bool {
    if stored.len() <= expected.len() {
        return stored.pieces().flatten().eq(&expected[..stored.len()]);
    }
    let mut longer = Vec::new();
    fill_value(key, stored.len(), &mut longer);
    stored.pieces().flatten().eq(&longer)
}

/// A value that can be told from every other key's.
pub(super) fn fill_value(key: &[u8], bytes: usize, value: &mut Vec<u8>) {
    let mut state = key.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    value.clear();
    while value.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        value.extend_from_slice(&state.to_le_bytes());
    }
    value.truncate(bytes);
}
