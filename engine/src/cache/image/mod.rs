//! Images: a cache as bytes, from which the next process goes on warm.
//!
//! Lives here: what both ways share, the layout of an item. Not here: files and when they are written (the server's).
//!
//! | file | concept |
//! |---|---|
//! | `save` | a cache becomes bytes, shard by shard, from cold to hot |
//! | `restore` | bytes become a cache; all of them are doubted |
//! | `head` | what a cache knows besides its items |
//! | `blocks` | the bytes' outermost layer: checked blocks |
//! | `error` | why not |
//!
//! ```text
//!   stream: head length u32 | head | item | item | ... | END u8 | count of items u64
//!   item:   ITEM u8 | marks u8 | key length u16 | flags u32 | value length u64 | version u64 | expires u64 |
//!           accessed u32 | client's own CAS u64, if the kind is ITEM_WITH_CAS | key | value
//! ```
//! Neither way holds more than a block, an item, and what one step of a walk gives (64 KiB, or one item).

mod blocks;
mod error;
mod head;
mod restore;
mod save;

pub use error::{Damage, RestoreError, SaveError};
pub use restore::Restored;

use crate::mutation::{Marks, Version};
use crate::storage::Meta;

use super::Inner;

const END: u8 = 0;
const ITEM: u8 = 1;
const ITEM_WITH_CAS: u8 = 2;
/// An item's fields behind its kind, up to the client's own CAS.
const FIELDS_BYTES: usize = 35;

/// An item's fields as they lie in an image.
#[derive(Debug, Clone, Copy)]
struct ItemFields {
    meta: Meta,
    key_bytes: u16,
    value_bytes: u64,
    /// When it was last accessed, in seconds since the Unix epoch; 0 where that was not kept.
    accessed_s: u32,
}

impl ItemFields {
    fn encode(&self, out: &mut Vec<u8>) {
        let Meta { version, flags, expires_at_ms, marks, client_cas } = self.meta;
        out.push(if client_cas.is_some() { ITEM_WITH_CAS } else { ITEM });
        out.push(marks.0);
        out.extend_from_slice(&self.key_bytes.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes());
        out.extend_from_slice(&self.value_bytes.to_le_bytes());
        out.extend_from_slice(&version.0.to_le_bytes());
        out.extend_from_slice(&expires_at_ms.to_le_bytes());
        out.extend_from_slice(&self.accessed_s.to_le_bytes());
        out.extend_from_slice(client_cas.map(u64::to_le_bytes).as_ref().map_or(&[], |bytes| &bytes[..]));
    }

    fn decode(fields: &[u8; FIELDS_BYTES], client_cas: Option<[u8; 8]>) -> ItemFields {
        let number = |from: usize, count: usize| {
            let mut bytes = [0; 8];
            bytes[..count].copy_from_slice(&fields[from..from + count]);
            u64::from_le_bytes(bytes)
        };
        ItemFields {
            key_bytes: number(1, 2) as u16,
            value_bytes: number(7, 8),
            accessed_s: number(31, 4) as u32,
            meta: Meta {
                marks: Marks(fields[0]),
                flags: number(3, 4) as u32,
                version: Version(number(15, 8)),
                expires_at_ms: number(23, 8),
                client_cas: client_cas.map(u64::from_le_bytes),
            },
        }
    }
}

#[cfg(test)]
mod tests;
