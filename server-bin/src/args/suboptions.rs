//! The words of `-o`: the ones that do something here, the ones of memcached's that need not, and no others.

use crate::settings::Settings;

/// What `-h` says about them.
pub(super) const HELP: &str = "\
Suboptions (-o):
  idle_timeout=SECONDS      close a connection that sends nothing for so long (default: 0, never)
  request_timeout=SECONDS   close a connection whose request takes longer to come (default: 60; 0: never)
  request_rate=BYTES        give a request so much longer as its bytes take at this many a second (default: 4096;
                            0: no longer)
  no_maxconns_fast          when -c is reached let connections wait, instead of refusing them
  Words of memcached's that mean nothing to this engine are accepted.";

/// memcached's `-o` words that mean nothing to this engine and are accepted (rule Z9). Those of its TLS, proxy and flash
/// builds are not among them: ignoring those would promise what is not there.
const IGNORED_SUBOPTIONS: [&str; 36] = [
    "hashpower",
    "no_hashexpand",
    "hash_algorithm",
    "tail_repair_time",
    "slab_reassign",
    "no_slab_reassign",
    "slab_automove",
    "no_slab_automove",
    "slab_automove_ratio",
    "slab_automove_window",
    "slab_automove_freeratio",
    "slab_chunk_max",
    "slab_sizes",
    "lru_crawler",
    "no_lru_crawler",
    "lru_crawler_sleep",
    "lru_crawler_tocrawl",
    "lru_maintainer",
    "no_lru_maintainer",
    "hot_lru_pct",
    "warm_lru_pct",
    "hot_max_factor",
    "warm_max_factor",
    "temporary_ttl",
    "watcher_logbuf_size",
    "worker_logbuf_size",
    "read_buf_mem_limit",
    "resp_obj_mem_limit",
    "track_sizes",
    "inline_ascii_resp",
    "no_inline_ascii_resp",
    "no_chunked_items",
    "modern",
    "no_modern",
    "drop_privileges",
    "no_drop_privileges",
];

/// What the words ask for.
#[derive(Debug)]
pub(super) struct Suboptions {
    pub(super) refuses_when_full: bool,
    pub(super) idle_timeout_ms: u64,
    pub(super) request_timeout_ms: u64,
    pub(super) request_bytes_per_second_min: u64,
}

impl Suboptions {
    pub(super) fn read(words: &[String]) -> Result<Suboptions, String> {
        let defaults = Settings::default();
        let mut read = Suboptions {
            refuses_when_full: defaults.refuses_when_full,
            idle_timeout_ms: defaults.idle_timeout_ms,
            request_timeout_ms: defaults.request_timeout_ms,
            request_bytes_per_second_min: defaults.request_bytes_per_second_min,
        };
        for word in words.iter().filter(|word| !word.is_empty()) {
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), None),
            };
            match name {
                "maxconns_fast" => read.refuses_when_full = true,
                "no_maxconns_fast" => read.refuses_when_full = false,
                "idle_timeout" => read.idle_timeout_ms = number(name, value, "SECONDS")? * 1000,
                "request_timeout" => read.request_timeout_ms = number(name, value, "SECONDS")? * 1000,
                "request_rate" => read.request_bytes_per_second_min = number(name, value, "BYTES")?,
                _ if IGNORED_SUBOPTIONS.contains(&name) => {}
                _ => return Err(format!("-o {name}: no such suboption")),
            }
        }
        Ok(read)
    }
}

fn number(name: &str, value: Option<&str>, unit: &str) -> Result<u64, String> {
    let number = value.and_then(|value| value.parse::<u32>().ok());
    let wrong = || {
        format!("-o {name}{}: give {name}={unit}", value.map_or(String::new(), |value| format!("={value}")))
    };
    number.map(u64::from).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &str) -> Result<Suboptions, String> {
        Suboptions::read(&words.split(',').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn what_works_is_read_and_the_last_word_counts() {
        let read =
            read("idle_timeout=5,request_timeout=7,request_rate=0,no_maxconns_fast,idle_timeout=6,").unwrap();
        assert_eq!((read.idle_timeout_ms, read.request_timeout_ms), (6_000, 7_000));
        assert_eq!((read.request_bytes_per_second_min, read.refuses_when_full), (0, false));
    }

    #[test]
    fn z9_memcacheds_words_are_accepted_and_a_stranger_is_named() {
        let words = "hashpower=20,slab_chunk_max=1024,slab_automove,slab_automove_window=3,lru_crawler,lru_maintainer,\
                     no_lru_crawler,no_lru_maintainer,modern,no_modern,maxconns_fast,idle_timeout=1,\
                     watcher_logbuf_size=8,worker_logbuf_size=8,hot_lru_pct=10";
        read(words).unwrap();
        assert_eq!(read("modern,nonsense=1").unwrap_err(), "-o nonsense: no such suboption");
    }

    #[test]
    fn a_number_that_is_none_is_refused() {
        for word in ["idle_timeout", "idle_timeout=", "request_timeout=x", "request_rate=-1"] {
            let why = read(word).unwrap_err();
            assert!(why.starts_with(&format!("-o {word}: give ")), "{why}");
        }
    }
}
