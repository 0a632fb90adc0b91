//! Request traces: a line a request, `KEY [VALUE_SIZE]`, plain or gzipped.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// A trace with its keys numbered from 0 in the order of their first request.
pub struct Trace {
    pub requests: Vec<u32>,
    /// By key: bytes of its value, or 1 for each key of a trace without sizes.
    pub sizes: Vec<u32>,
    pub is_sized: bool,
}

impl Trace {
    /// # Errors
    /// The file can't be read, or a line has no key.
    pub fn read(path: &Path) -> std::io::Result<Trace> {
        let file = File::open(path)?;
        let is_gzipped = path.extension().is_some_and(|extension| extension == "gz");
        let reader: Box<dyn Read> =
            if is_gzipped { Box::new(flate2::read::GzDecoder::new(file)) } else { Box::new(file) };
        let mut trace = Trace { requests: Vec::new(), sizes: Vec::new(), is_sized: false };
        let mut numbers: HashMap<Vec<u8>, u32> = HashMap::new();
        for line in BufReader::new(reader).split(b'\n') {
            let line = line?;
            let mut words = line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty());
            let Some(key) = words.next() else { continue };
            let size = words.next().and_then(|word| std::str::from_utf8(word).ok()?.parse::<u32>().ok());
            trace.is_sized |= size.is_some();
            let next = trace.sizes.len() as u32;
            let number = *numbers.entry(key.to_vec()).or_insert(next);
            if number == next {
                trace.sizes.push(size.unwrap_or(1).max(1));
            }
            trace.requests.push(number);
        }
        Ok(trace)
    }

    pub fn distinct_bytes(&self) -> u64 {
        self.sizes.iter().map(|size| u64::from(*size)).sum()
    }
}
