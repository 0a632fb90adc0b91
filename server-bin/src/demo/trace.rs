//! Request traces: `KEY [VALUE_SIZE]` a line, gzip if the name ends in `.gz`.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

/// The longest line.
const LINE_BYTES_MAX: usize = 4096;

/// The largest value that a trace may ask for: 64 MiB.
const VALUE_BYTES_MAX: u32 = 64 << 20;

/// One request for a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The key, 1 to 250 bytes.
    pub key: Box<[u8]>,
    /// Its value's size in bytes, if the trace says.
    pub value_bytes: Option<u32>,
}

/// What is wrong with a trace.
#[derive(Debug)]
#[non_exhaustive]
pub enum TraceError {
    /// The file can't be opened or read.
    Unreadable(PathBuf, std::io::Error),
    /// A line is no `KEY [VALUE_SIZE]`.
    BadLine {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with it.
        why: &'static str,
    },
    /// More distinct keys than are counted.
    TooManyKeys {
        /// How many are.
        keys_max: usize,
    },
    /// Too few requests to say anything.
    TooShort {
        /// How many there are.
        requests: u64,
    },
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TraceError::Unreadable(path, why) => write!(f, "can't read the trace {}: {why}", path.display()),
            TraceError::BadLine { path, line, why } => {
                write!(f, "{}, line {line}: {why}; give KEY [VALUE_SIZE]", path.display())
            }
            TraceError::TooManyKeys { keys_max } => {
                write!(f, "the trace has more than {keys_max} distinct keys; give a part of it")
            }
            TraceError::TooShort { requests } => {
                write!(f, "the trace has {requests} requests; give at least 100")
            }
        }
    }
}

impl std::error::Error for TraceError {}

/// Reads a trace as a stream; empty lines are passed over.
pub struct TraceReader {
    path: PathBuf,
    input: BufReader<Box<dyn Read>>,
    line: u64,
    buffer: Vec<u8>,
}

impl fmt::Debug for TraceReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceReader")
            .field("path", &self.path)
            .field("line", &self.line)
            .finish_non_exhaustive()
    }
}

impl TraceReader {
    /// Opens a trace.
    ///
    /// # Errors
    /// The file can't be opened.
    pub fn open(path: &Path) -> Result<TraceReader, TraceError> {
        let file = File::open(path).map_err(|why| TraceError::Unreadable(path.to_owned(), why))?;
        let plain: Box<dyn Read> = match path.extension().is_some_and(|ending| ending == "gz") {
            true => Box::new(MultiGzDecoder::new(file)),
            false => Box::new(file),
        };
        let input = BufReader::with_capacity(64 << 10, plain);
        Ok(TraceReader { path: path.to_owned(), input, line: 0, buffer: Vec::new() })
    }

    fn bad(&self, why: &'static str) -> TraceError {
        TraceError::BadLine { path: self.path.clone(), line: self.line, why }
    }

    /// Reads one line into the buffer; false at the end.
    fn read_line(&mut self) -> Result<bool, TraceError> {
        self.buffer.clear();
        let mut bounded = (&mut self.input).take(LINE_BYTES_MAX as u64 + 1);
        let count = bounded
            .read_until(b'\n', &mut self.buffer)
            .map_err(|why| TraceError::Unreadable(self.path.clone(), why))?;
        self.line += 1;
        if count > LINE_BYTES_MAX {
            return Err(self.bad("the line is too long"));
        }
        Ok(count > 0)
    }

    fn parse(&self) -> Result<Option<Request>, TraceError> {
        let mut words = self.buffer.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let Some(key) = words.next() else { return Ok(None) };
        if key.len() > 250 {
            return Err(self.bad("the key has more than 250 bytes"));
        }
        let value_bytes = match words.next() {
            None => None,
            Some(digits) => {
                let size = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
                Some(
                    size.filter(|size| *size <= VALUE_BYTES_MAX)
                        .ok_or_else(|| self.bad("the size is no number up to 64 MiB"))?,
                )
            }
        };
        if words.next().is_some() {
            return Err(self.bad("more than two words"));
        }
        Ok(Some(Request { key: key.into(), value_bytes }))
    }
}

impl Iterator for TraceReader {
    type Item = Result<Request, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read_line() {
                Ok(false) => return None,
                Ok(true) => {}
                Err(why) => return Some(Err(why)),
            }
            match self.parse() {
                Ok(None) => {}
                Ok(Some(request)) => return Some(Ok(request)),
                Err(why) => return Some(Err(why)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn read(name: &str, bytes: &[u8]) -> Vec<Result<Request, TraceError>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        TraceReader::open(&path).unwrap().take(10).collect()
    }

    #[test]
    fn plain_and_gzip_read_alike() {
        let text = b"a\n\nb 12\r\nc 0";
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text).unwrap();
        for (name, bytes) in [("t.txt", text.to_vec()), ("t.gz", packed.finish().unwrap())] {
            let requests: Vec<Request> = read(name, &bytes).into_iter().map(Result::unwrap).collect();
            let sizes: Vec<_> = requests.iter().map(|request| request.value_bytes).collect();
            assert_eq!(sizes, [None, Some(12), Some(0)]);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_requests_within_bounds_or_an_error(bytes in prop::collection::vec(
            prop_oneof![prop::sample::select(&b"a1 \n\r9"[..]), any::<u8>()], 0..600), name in "t\\.(txt|gz)", spoilt: u16,
        ) {
            let bytes = if name.ends_with("gz") {
                let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packed.write_all(&bytes).unwrap();
                let mut packed = packed.finish().unwrap();
                let at = usize::from(spoilt) % packed.len();
                packed[at] ^= (spoilt >> 8) as u8;
                packed
            } else {
                bytes
            };
            for request in read(&name, &bytes).into_iter().flatten() {
                prop_assert!((1..=250).contains(&request.key.len()));
                prop_assert!(request.value_bytes.is_none_or(|bytes| bytes <= VALUE_BYTES_MAX));
            }
        }
    }

    #[test]
    fn a_bad_line_is_named() {
        for bad in [&b"ok\na b\n"[..], b"ok\na 1 2\n", b"ok\na 99999999999\n", &[b'x'; 300], &[b'x'; 5000]] {
            let first_error = read("t.txt", bad).into_iter().find_map(Result::err).unwrap().to_string();
            assert!(first_error.contains("line "), "{first_error}");
        }
        assert!(read("t.gz", b"no gzip at all")[0].is_err());
    }
}
