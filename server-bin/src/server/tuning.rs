//! `slabs` and `lru` (rule G9): what memcached lets operators tune, and what of it exists here.
//!
//! The engine moves pages between classes as they are wanted, and orders items by itself. So words are read as
//! memcached reads them, what is the case already is `OK`, and what can't be done is refused.

use hotspare_memcached::classic::Tokens;

use super::administration::number;
use super::commands::Executor;

const BAD_LINE: &[u8] = b"CLIENT_ERROR bad command line format";

impl Executor<'_> {
    /// `slabs reassign` and `slabs automove`.
    pub(super) fn slabs(&self, words: Tokens<'_>) -> &'static [u8] {
        let mut words = words.iter();
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some(b"reassign"), Some(source), Some(target), None) => self.reassign(source, target),
            // Accepted, as rule G9 allows: pages move by themselves at every setting. Further words are passed over.
            (Some(b"automove"), Some(b"ratio"), Some(ratio), _) if decimal(ratio).is_some() => b"OK",
            (Some(b"automove"), Some(b"ratio"), ..) => b"ERROR",
            (Some(b"automove"), Some(level), ..) => match number(level) {
                Some(0..=2) => b"OK",
                Some(_) => b"ERROR",
                None => BAD_LINE,
            },
            _ => b"ERROR",
        }
    }

    /// No page is moved by hand, so a sound request finds none to spare.
    fn reassign(&self, source: &[u8], target: &[u8]) -> &'static [u8] {
        let classes = self.shared.cache.class_stats().len() as i32;
        let is_class = |number: i32| (1..=classes).contains(&number);
        match (integer(source), integer(target)) {
            (None, _) | (_, None) => BAD_LINE,
            (Some(source), Some(target)) if source == target => b"SAME src and dst class are identical",
            // From whichever class there is.
            (Some(-1), Some(target)) if is_class(target) => b"NOSPARE source class has no spare pages",
            (Some(source), Some(target)) if is_class(source) && is_class(target) => {
                b"NOSPARE source class has no spare pages"
            }
            _ => b"BADCLASS invalid src or dst class id",
        }
    }

    /// `lru tune`, `lru mode` and `lru temp_ttl`.
    pub(super) fn lru(&self, words: Tokens<'_>) -> &'static [u8] {
        // Further words are passed over, as memcached does.
        let words: Vec<&[u8]> = words.iter().take(5).collect();
        match words[..] {
            // Two queues, one of them for what is new: that is as segmented as it gets.
            [b"mode", b"segmented", ..] => b"OK",
            [b"mode", b"flat", ..] => b"ERROR the order of this engine has no flat mode",
            [b"tune", hot, warm, hot_factor, warm_factor] => tune([hot, warm], [hot_factor, warm_factor]),
            [b"temp_ttl", word, ..] => match integer(word) {
                // Negative switches it off, which it is.
                Some(..0) => b"OK",
                Some(_) => b"ERROR this engine has no queue for short lifetimes",
                None => b"ERROR",
            },
            _ => b"ERROR",
        }
    }
}

fn tune(shares: [&[u8]; 2], factors: [&[u8]; 2]) -> &'static [u8] {
    let ([Some(hot), Some(warm)], [Some(hot_factor), Some(warm_factor)]) =
        (shares.map(number), factors.map(decimal))
    else {
        return b"ERROR";
    };
    match () {
        () if hot.saturating_add(warm) > 80 => b"ERROR hot and warm pcts must not exceed 80",
        () if hot_factor <= 0.0 || warm_factor <= 0.0 => b"ERROR hot/warm age factors must be greater than 0",
        () => b"ERROR this engine tunes itself",
    }
}

fn decimal(word: &[u8]) -> Option<f64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// Digits behind an optional `-`, in 32 bits (rule F7).
fn integer(word: &[u8]) -> Option<i32> {
    std::str::from_utf8(word).ok().filter(|word| !word.starts_with('+'))?.parse().ok()
}
