//! Servers under load: what they cost in CPU and time, whoever made them.
//!
//! Lives here: the words of the measurement. `process` starts a server and reads what the kernel counts of it,
//! `requests` are the bytes of each dialect, `load` is the generator.

pub mod load;
pub mod process;
pub mod requests;

/// Keys of every server, 32 bytes each.
pub const KEYS: usize = 1_000_000;
/// Bytes of their values.
pub const VALUE_BYTES: usize = 100;
/// Keys with values of 16 KiB and of 512 KiB, and those sizes.
pub const LARGE: (usize, usize) = (10_000, 16 << 10);
/// As [`LARGE`].
pub const HUGE: (usize, usize) = (200, 512 << 10);
