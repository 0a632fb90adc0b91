//! The words of `-o`: the ones that do something here, the ones of memcached's that need not, and no others.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::byte_count;
use crate::settings::{Settings, TlsSettings, VerifyClients};

/// What `-h` says about them.
pub(super) const HELP: &str = "\
Suboptions (-o):
  idle_timeout=SECONDS      close a connection that sends nothing for so long (default: 0, never)
  request_timeout=SECONDS   close a connection whose request takes longer to come (default: 60; 0: never)
  request_rate=BYTES        give a request so much longer as its bytes take at this many a second, also with k, m or g (default: 4k;
                            0: no longer)
  watcher_logbuf_size=KB    let so much wait for one who watches, and lose what is above (default: 256)
  track_sizes               let stats sizes count items by their size, which goes through all of them
  no_maxconns_fast          when -c is reached let connections wait, instead of refusing them
  ssl_chain_cert=FILE       with -Z: the certificate and its chain, in PEM; read again on SIGHUP
  ssl_key=FILE              the private key, in PEM (default: in the same file)
  ssl_ca_cert=FILE          who vouches for clients, in PEM
  ssl_verify_mode=N         0: ask clients for no certificate (the default), 1: ask, if there is an ssl_ca_cert,
                            2 or 3: let nobody in without
  ssl_min_version=N         2: TLS 1.2 (the default), 3: TLS 1.3
  Words of memcached's that mean nothing to this engine are accepted.";

/// What may stand behind a word of memcached's that has no effect here, as memcached reads it.
#[derive(Debug, Clone, Copy)]
enum Shape {
    /// Nothing; what stands there is passed over.
    Alone,
    /// A whole number from the first to the second.
    Whole(u64, u64),
    /// A number above the first, up to the second.
    Above(f64, f64),
    /// One of these.
    OneOf(&'static [&'static str]),
    /// Whatever.
    Text,
}

/// A 32-bit number.
const ANY_NUMBER: Shape = Shape::Whole(0, u32::MAX as u64);

/// memcached's `-o` words that have no effect on this engine and are accepted (rule Z9), and under which name `stats
/// settings` tells them. Those of its proxy and flash builds are not among them: ignoring those would promise what is not
/// there.
const WITHOUT_EFFECT: [(&str, Shape, &str); 34] = [
    ("hashpower", Shape::Whole(12, 32), "hashpower_init"),
    ("no_hashexpand", Shape::Alone, ""),
    ("hash_algorithm", Shape::OneOf(&["jenkins", "murmur3", "xxh3"]), "hash_algorithm"),
    ("tail_repair_time", Shape::Whole(10, u32::MAX as u64), "tail_repair_time"),
    ("slab_reassign", Shape::Alone, ""),
    ("no_slab_reassign", Shape::Alone, ""),
    ("no_slab_automove", Shape::Alone, ""),
    ("slab_automove_ratio", Shape::Above(0.0, 1.0), "slab_automove_ratio"),
    ("slab_automove_window", Shape::Whole(3, u32::MAX as u64), "slab_automove_window"),
    ("slab_automove_freeratio", Shape::Above(0.0, 1.0), ""),
    ("slab_chunk_max", Shape::Whole(1, 1 << 20), "slab_chunk_max"),
    ("slab_sizes", Shape::Text, ""),
    ("lru_crawler_sleep", Shape::Whole(0, 1_000_000), "lru_crawler_sleep"),
    ("lru_crawler_tocrawl", ANY_NUMBER, "lru_crawler_tocrawl"),
    ("lru_maintainer", Shape::Alone, ""),
    ("no_lru_maintainer", Shape::Alone, ""),
    ("hot_lru_pct", Shape::Whole(1, 79), "hot_lru_pct"),
    ("warm_lru_pct", Shape::Whole(1, 79), "warm_lru_pct"),
    ("hot_max_factor", Shape::Above(0.0, f64::MAX), "hot_max_factor"),
    ("warm_max_factor", Shape::Above(0.0, f64::MAX), "warm_max_factor"),
    ("temporary_ttl", ANY_NUMBER, "temporary_ttl"),
    ("worker_logbuf_size", ANY_NUMBER, "worker_logbuf_size"),
    ("read_buf_mem_limit", ANY_NUMBER, "read_buf_mem_limit"),
    ("resp_obj_mem_limit", Shape::Text, ""),
    ("inline_ascii_resp", Shape::Alone, ""),
    ("no_inline_ascii_resp", Shape::Alone, ""),
    ("no_chunked_items", Shape::Alone, ""),
    ("modern", Shape::Alone, ""),
    ("drop_privileges", Shape::Alone, ""),
    ("no_drop_privileges", Shape::Alone, ""),
    ("ssl_keyformat", Shape::Whole(1, 1), ""),
    ("ssl_wbuf_size", ANY_NUMBER, "ssl_wbuf_size"),
    ("ssl_session_cache", Shape::Alone, "ssl_session_cache"),
    ("ssl_kernel_tls", Shape::Alone, ""),
];

impl Shape {
    /// What is wrong with this behind a word; `None` if it fits.
    fn misses(self, value: Option<&str>) -> Option<String> {
        let value = value.unwrap_or_default();
        match self {
            Shape::Alone | Shape::Text => None,
            Shape::Whole(least, most) => {
                let fits = value.parse().is_ok_and(|number: u64| (least..=most).contains(&number));
                (!fits).then(|| format!("a whole number from {least} to {most}"))
            }
            Shape::Above(bound, most) => {
                let fits = value.parse().is_ok_and(|number: f64| number > bound && number <= most);
                let end = if most == f64::MAX { String::new() } else { format!(", at most {most}") };
                (!fits).then(|| format!("a number above {bound}{end}"))
            }
            Shape::OneOf(words) => (!words.contains(&value)).then(|| words.join(", ")),
        }
    }
}

/// A word of memcached's that has no effect here, checked as memcached checks it, and kept for `stats settings`; whether it
/// is one.
fn without_effect(
    name: &str,
    value: Option<&str>,
    told: &mut BTreeMap<&'static str, String>,
) -> Result<bool, String> {
    let Some((_, shape, setting)) = WITHOUT_EFFECT.iter().find(|(word, ..)| *word == name) else {
        return Ok(false);
    };
    if let Some(wanted) = shape.misses(value) {
        let given = value.map_or(String::new(), |value| format!("={value}"));
        return Err(format!("-o {name}{given}: give {wanted}"));
    }
    let text = match shape {
        Shape::Alone => "yes".to_owned(),
        _ => in_unit_of_settings(name, value.unwrap_or_default()),
    };
    if !setting.is_empty() {
        told.insert(*setting, text);
    }
    Ok(true)
}

/// Some are given in one unit and told in another, or with so many digits.
fn in_unit_of_settings(name: &str, value: &str) -> String {
    let shift = match name {
        "slab_chunk_max" | "worker_logbuf_size" | "ssl_wbuf_size" => 10,
        "read_buf_mem_limit" => 20,
        _ => 0,
    };
    match (value.parse::<u64>(), value.parse::<f64>()) {
        (Ok(number), _) if !name.ends_with("factor") && !name.ends_with("ratio") => {
            (number << shift).to_string()
        }
        (_, Ok(number)) => format!("{number:.2}"),
        _ => value.to_owned(),
    }
}

/// Why a word of memcached's is refused.
fn refusal(name: &str) -> String {
    let why = match name {
        _ if name.starts_with("ext_") => "there is no storage beside memory here",
        _ if name.starts_with("proxy_") => "this is no proxy",
        "sock_cookie_id" => "sockets get no cookie here",
        _ => "no such suboption",
    };
    format!("-o {name}: {why}")
}

/// What the words ask for.
#[derive(Debug)]
pub(super) struct Suboptions {
    pub(super) refuses_when_full: bool,
    pub(super) idle_timeout_ms: u64,
    pub(super) request_timeout_ms: u64,
    pub(super) request_bytes_per_second_min: u64,
    pub(super) watcher_queue_bytes_max: usize,
    pub(super) track_sizes: bool,
    pub(super) lru_crawler: bool,
    /// What has no effect, by its name in `stats settings`.
    pub(super) told: BTreeMap<&'static str, String>,
    pub(super) tls: TlsWords,
}

/// The words about TLS.
#[derive(Debug, Default)]
pub(super) struct TlsWords {
    first: Option<String>,
    chain_file: Option<PathBuf>,
    key_file: Option<PathBuf>,
    authorities_file: Option<PathBuf>,
    verify_clients: VerifyClients,
    only_newest_version: bool,
}

impl TlsWords {
    fn read(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        let value = value.unwrap_or_default();
        let file = || match std::path::absolute(value) {
            Ok(path) => Ok(Some(path)),
            Err(why) => Err(format!("-o {name}={value}: {why}")),
        };
        match (name, value) {
            ("ssl_chain_cert", _) => self.chain_file = file()?,
            ("ssl_key", _) => self.key_file = file()?,
            ("ssl_ca_cert", _) => self.authorities_file = file()?,
            ("ssl_verify_mode", "0") => self.verify_clients = VerifyClients::Never,
            ("ssl_verify_mode", "1") => self.verify_clients = VerifyClients::IfGiven,
            ("ssl_verify_mode", "2" | "3") => self.verify_clients = VerifyClients::Always,
            ("ssl_min_version", "2") => self.only_newest_version = false,
            ("ssl_min_version", "3") => self.only_newest_version = true,
            _ => return Err(format!("-o {name}={value}: not supported; see hotspare --help")),
        }
        self.first.get_or_insert_with(|| name.to_owned());
        Ok(())
    }

    pub(super) fn settings(&self, is_enabled: bool) -> Result<Option<TlsSettings>, String> {
        match (is_enabled, &self.first, &self.chain_file) {
            (false, None, _) => Ok(None),
            (false, Some(word), _) => Err(format!("-o {word} does nothing without -Z")),
            (true, _, None) => Err("-Z needs a certificate; give -o ssl_chain_cert=FILE".to_owned()),
            (true, _, Some(_))
                if self.verify_clients == VerifyClients::Always && self.authorities_file.is_none() =>
            {
                Err("-o ssl_verify_mode=2 needs -o ssl_ca_cert=FILE".to_owned())
            }
            (true, _, Some(chain_file)) => Ok(Some(TlsSettings {
                chain_file: chain_file.clone(),
                key_file: self.key_file.clone(),
                authorities_file: self.authorities_file.clone(),
                verify_clients: self.verify_clients,
                only_newest_version: self.only_newest_version,
            })),
        }
    }
}

impl Suboptions {
    pub(super) fn read(words: &[String]) -> Result<Suboptions, String> {
        let defaults = Settings::default();
        let mut read = Suboptions {
            refuses_when_full: defaults.refuses_when_full,
            idle_timeout_ms: defaults.idle_timeout_ms,
            request_timeout_ms: defaults.request_timeout_ms,
            request_bytes_per_second_min: defaults.request_bytes_per_second_min,
            watcher_queue_bytes_max: defaults.watcher_queue_bytes_max,
            track_sizes: defaults.track_sizes,
            lru_crawler: defaults.lru_crawler,
            told: BTreeMap::new(),
            tls: TlsWords::default(),
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
                "request_rate" => read.request_bytes_per_second_min = bytes_a_second(value)?,
                "watcher_logbuf_size" => read.watcher_queue_bytes_max = queue_bytes(value)?,
                "track_sizes" => read.track_sizes = true,
                "lru_crawler" => read.lru_crawler = true,
                "no_lru_crawler" => read.lru_crawler = false,
                "slab_automove" => read.tell_automove(value)?,
                "no_modern" => {
                    // As memcached's releases before 1.5 were.
                    (read.refuses_when_full, read.lru_crawler) = (false, false);
                }
                _ if without_effect(name, value, &mut read.told)? => {}
                _ if name.starts_with("ssl_") => read.tls.read(name, value)?,
                _ => return Err(refusal(name)),
            }
        }
        read.check_together()?;
        Ok(read)
    }

    fn tell_automove(&mut self, value: Option<&str>) -> Result<(), String> {
        let level = value.unwrap_or("1");
        if !["0", "1", "2"].contains(&level) {
            return Err(format!("-o slab_automove={level}: give 0, 1 or 2"));
        }
        self.told.insert("slab_automove", level.to_owned());
        Ok(())
    }

    /// What memcached refuses of words that are right by themselves.
    fn check_together(&self) -> Result<(), String> {
        let share = |name, default| self.told.get(name).map_or(Ok(default), |text| text.parse::<u64>());
        match (share("hot_lru_pct", 20), share("warm_lru_pct", 40)) {
            (Ok(hot), Ok(warm)) if hot + warm > 80 => {
                Err(format!("-o hot_lru_pct={hot},warm_lru_pct={warm}: both together are 80 at most"))
            }
            _ => Ok(()),
        }
    }
}

fn number(name: &str, value: Option<&str>, unit: &str) -> Result<u64, String> {
    let number = value.and_then(|value| value.parse::<u32>().ok());
    let wrong = || {
        format!("-o {name}{}: give {name}={unit}", value.map_or(String::new(), |value| format!("={value}")))
    };
    number.map(u64::from).ok_or_else(wrong)
}

/// The rate at which a request comes at least.
fn bytes_a_second(value: Option<&str>) -> Result<u64, String> {
    let value = value.unwrap_or_default();
    let bytes = byte_count(value).map_err(|why| format!("-o request_rate={value}: {why}"))?;
    Ok(bytes as u64)
}

/// A watcher's queue, given in KiB: no watcher without a line, and none that takes more than a gigabyte.
fn queue_bytes(value: Option<&str>) -> Result<usize, String> {
    match number("watcher_logbuf_size", value, "KB")? {
        kilobytes @ 1..=1_048_576 => Ok(kilobytes as usize * 1024),
        kilobytes => Err(format!("-o watcher_logbuf_size={kilobytes}: give 1 to 1048576 (KB)")),
    }
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
        assert_eq!((read.watcher_queue_bytes_max, read.track_sizes), (256 << 10, false));
    }

    #[test]
    fn z9_memcacheds_words_are_accepted_and_a_stranger_is_named() {
        let words = "hashpower=20,slab_chunk_max=1024,slab_automove,slab_automove_window=3,lru_crawler,lru_maintainer,\
                     no_lru_crawler,no_lru_maintainer,modern,no_modern,maxconns_fast,idle_timeout=1,\
                     watcher_logbuf_size=8,worker_logbuf_size=8,hot_lru_pct=10";
        assert_eq!(read(words).unwrap().watcher_queue_bytes_max, 8 << 10);
        assert!(read("track_sizes").unwrap().track_sizes);
        assert_eq!(read("modern,nonsense=1").unwrap_err(), "-o nonsense: no such suboption");
    }

    #[test]
    fn a_number_that_is_none_is_refused() {
        for word in
            ["idle_timeout", "idle_timeout=", "request_timeout=x", "request_rate=-1", "watcher_logbuf_size=0"]
        {
            let why = read(word).unwrap_err();
            assert!(why.starts_with(&format!("-o {word}: give ")), "{why}");
        }
    }
}
