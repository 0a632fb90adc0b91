//! Bytes become a cache. All of them are doubted: an image that does not hold together makes no cache.

use std::io::Read;
use std::sync::atomic::Ordering;

use crate::cache::apply::Present;
use crate::cache::{Cache, Group};
use crate::config::Config;
use crate::mutation::{KEY_BYTES_MAX, Version};
use crate::storage::{Place, item_bytes};

use super::blocks::BlockReader;
use super::error::{Damage, RestoreError};
use super::head::{HEAD_BYTES_MAX, Head, Membership};
use super::{END, ITEM, ITEM_WITH_CAS, Inner, ItemFields};

/// What became of an image's items.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Restored {
    /// Items that are in the cache.
    pub items: u64,
    /// Items that have expired, or are past a flush that was to come, since they were saved.
    pub expired: u64,
    /// Items that this cache has no room for: coldest first, or above its limit for one item.
    pub left_out: u64,
}

impl Cache {
    /// Makes a cache that goes on where the one that was saved stopped: [`Cache::save_to`] has an example.
    ///
    /// Versions go on above the saved ones. Deadlines stay the moments they were: time has passed meanwhile as the wall
    /// clock says, and never less than none. With less memory than before the coldest items are left out. The seed of
    /// the key hash is the saved one, whatever the configuration says.
    ///
    /// **In a group** it has the saved position, and identity if the configuration names none. A node whose configuration
    /// names peers or a primary follows, and serves nothing until a primary has taken it; it resumes from its position if
    /// it can, else it is copied anew. One without, if it was the primary, goes on reigning under a new term and branch;
    /// but if it knows of other nodes, its [`Replicator`](crate::Replicator) asks each of them first, once, whether
    /// one of them reigns by now, and until then it serves nothing. One that was no primary waits to be promoted.
    ///
    /// Use an image once. From a copy of it, or an old one, a cache would serve what was overwritten since.
    ///
    /// # Errors
    /// The image can't be read, is damaged, or of another format or group; or the configuration is out of range.
    pub fn restore_from(config: Config, source: impl Read) -> Result<(Cache, Restored), RestoreError> {
        let mut source = BlockReader::begin(source)?;
        let length = u32::from_le_bytes(source.array()?);
        if length > HEAD_BYTES_MAX {
            return Err(Damage::Nonsense("its beginning").into());
        }
        let mut bytes = Vec::new();
        source.append_to(&mut bytes, length.into())?;
        let head = Head::decode(&bytes)?;
        let cache = Cache::new(config.hash_seed(head.hash_seed)).map_err(RestoreError::Config)?;
        let inner = &cache.inner;
        inner.take_up(&head)?;
        let mut restored = inner.take_items(&mut source, Version(head.last_version))?;
        source.finish()?;
        let present = cache.stats().items;
        restored.left_out = (restored.items - restored.expired).saturating_sub(present);
        restored.items = present;
        if let (Some(group), Some(_)) = (&inner.group, &head.membership) {
            inner.publish_serving(group);
            if group.roles.lock().reigns_unasked() {
                inner.reign_on(group);
            }
        }
        Ok((cache, restored))
    }
}

impl Inner {
    /// Takes up all but the items.
    fn take_up(&self, head: &Head) -> Result<(), RestoreError> {
        match (&self.group, &head.membership) {
            (Some(group), Some(member)) => take_up_membership(group, member)?,
            // Its items stay, below every version of the group that it begins.
            (Some(group), None) if group.roles.lock().is_plain_follower() => {
                return Err(RestoreError::NoHistory);
            }
            (None, Some(member)) if !member.reigned => return Err(RestoreError::WasNoPrimary),
            (Some(_), None) => {}
            (None, _) => self.last_version.begin_behind(head.last_version),
        }
        let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
        let (clock_ms, wall_ms) = (signed(head.clock_ms), signed(head.wall_ms));
        // As far from the wall clock as it was; but where that was set back, no earlier than it was.
        let at_least = clock_ms - signed(self.local_now_ms());
        self.adopt_clock_offset_ms((clock_ms - wall_ms).max(at_least));
        self.floors.raise_all(Version(head.flush_floor));
        for entry in &head.prefix_floors {
            if self.floors.raise_prefix(&entry.prefix, Version(entry.floor)).is_err() {
                return Err(Damage::Nonsense("a flush of it").into());
            }
        }
        self.set_flush_at(head.flush_at_ms);
        Ok(())
    }

    fn take_items(
        &self,
        source: &mut BlockReader<impl Read>,
        last_version: Version,
    ) -> Result<Restored, RestoreError> {
        let mut restored = Restored { items: 0, expired: 0, left_out: 0 };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        loop {
            let client_cas_follows = match source.array::<1>()? {
                [END] => break,
                [ITEM] => false,
                [ITEM_WITH_CAS] => true,
                _ => return Err(Damage::Nonsense("an item's kind").into()),
            };
            let fields = source.array()?;
            let client_cas = client_cas_follows.then(|| source.array()).transpose()?;
            let item = ItemFields::decode(&fields, client_cas);
            check_item(&item, last_version)?;
            restored.items += 1;
            key.clear();
            source.append_to(&mut key, item.key_bytes.into())?;
            if self.is_too_large(&item) {
                source.skip(item.value_bytes)?;
                continue;
            }
            value.clear();
            value.shrink_to(1 << 20);
            source.append_to(&mut value, item.value_bytes)?;
            if self.moment().is_dead(item.meta, || &key) {
                restored.expired += 1;
                continue;
            }
            let wanted = |present: Present<'_>| present().is_none_or(|version| version < item.meta.version);
            let hash = self.hasher.hash(&key);
            self.store_or_drop((hash, &key), &value, item.meta, Place::Hot, wanted, |cell| {
                if item.accessed_s != 0
                    && let Some(id) = cell.shard.find(hash, &key)
                {
                    cell.shard.set_accessed(id, item.accessed_s);
                }
            });
            self.tell_events();
        }
        match u64::from_le_bytes(source.array()?) == restored.items {
            true => Ok(restored),
            false => Err(Damage::Nonsense("the number of its items").into()),
        }
    }

    fn is_too_large(&self, item: &ItemFields) -> bool {
        let value_bytes = usize::try_from(item.value_bytes).unwrap_or(usize::MAX);
        item_bytes(item.key_bytes.into(), value_bytes) > self.item_bytes_max.load(Ordering::Relaxed)
    }
}

fn check_item(item: &ItemFields, last_version: Version) -> Result<(), Damage> {
    let meta = &item.meta;
    if !(1..=KEY_BYTES_MAX).contains(&usize::from(item.key_bytes)) {
        return Err(Damage::Nonsense("a key's length"));
    }
    if meta.version > last_version {
        return Err(Damage::Nonsense("an item's version"));
    }
    if !meta.marks.fit(item.value_bytes, meta.flags, meta.expires_at_ms, meta.client_cas) {
        return Err(Damage::Nonsense("an item's marks"));
    }
    Ok(())
}

fn take_up_membership(group: &Group, member: &Membership) -> Result<(), RestoreError> {
    let lineage = member.lineage()?;
    let mut roles = group.roles.lock();
    if roles.group != member.group {
        return Err(RestoreError::OtherGroup);
    }
    roles.restore(&group.config, member.node, member.term_seen, member.reigned, member.young);
    member.peers.iter().for_each(|peer| roles.learn_peer(peer));
    group.log.lock().restart(lineage);
    Ok(())
}
