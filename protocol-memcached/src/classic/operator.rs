//! The commands of operators, which look after a server instead of using its items.
//!
//! Lives here: their names. Not here: their words, which the server reads, since each means what the server makes of it.

/// A command of operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OperatorCommand {
    /// `cache_memlimit` (rule G3).
    CacheMemlimit,
    /// `lru_crawler` (rule G7).
    LruCrawler,
    /// `watch` (rule G8).
    Watch,
    /// `slabs` (rule G9).
    Slabs,
    /// `lru` (rule G9).
    Lru,
    /// `debugtime` (rule Z11).
    DebugTime,
}

const NAMES: [(&[u8], OperatorCommand); 6] = [
    (b"cache_memlimit", OperatorCommand::CacheMemlimit),
    (b"lru_crawler", OperatorCommand::LruCrawler),
    (b"watch", OperatorCommand::Watch),
    (b"slabs", OperatorCommand::Slabs),
    (b"lru", OperatorCommand::Lru),
    (b"debugtime", OperatorCommand::DebugTime),
];

impl OperatorCommand {
    /// The command with exactly this name.
    pub fn named(name: &[u8]) -> Option<OperatorCommand> {
        NAMES.iter().find(|(known, _)| *known == name).map(|(_, command)| *command)
    }

    /// Its name.
    pub fn name(self) -> &'static [u8] {
        NAMES.iter().find(|(_, command)| *command == self).map_or(b"", |(name, _)| name)
    }
}
