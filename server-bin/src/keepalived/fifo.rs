//! A FIFO that is read for ever: it may be made later, removed and made anew, and its writers come and go.
//!
//! It is opened without waiting for a writer, since an open that waits does not see that the path has become another
//! FIFO; and it stays open when the writers have gone, since closing would lose what the next one has just written.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};

use super::line::LINE_BYTES_MAX;

/// The pause where there is nothing to wait on: no FIFO, or none that has a writer.
const PAUSE: Duration = Duration::from_millis(100);

/// The longest wait, after which it is looked whether the path is another FIFO by now.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// A line, or its beginning where it is too long to be one.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    Whole(Vec<u8>),
    TooLong(Vec<u8>),
}

/// The reading end.
#[derive(Debug)]
pub(crate) struct Fifo {
    path: PathBuf,
    file: Option<File>,
    /// What has come of a line, at most `LINE_BYTES_MAX`.
    begun: Vec<u8>,
    /// Whether the line that has begun is too long, and was handed out.
    skips: bool,
    /// Since when nobody has it open for writing.
    orphaned_since: Option<Instant>,
    last_error: Option<String>,
}

impl Fifo {
    pub(crate) fn at(path: &Path) -> Fifo {
        Fifo {
            path: path.to_owned(),
            file: None,
            begun: Vec::new(),
            skips: false,
            orphaned_since: None,
            last_error: None,
        }
    }

    /// How long nobody has had it open for writing, as far as was seen.
    pub(crate) fn orphaned_for(&self) -> Duration {
        self.orphaned_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The lines that have come within the time, which may end early.
    pub(crate) fn wait(&mut self, within: Duration) -> Vec<Line> {
        let within = within.min(WAIT_MAX);
        if self.is_gone() {
            self.open();
        }
        let mut piece = [0; 4096];
        let Some(file) = &mut self.file else {
            self.orphaned_since.get_or_insert_with(Instant::now);
            std::thread::sleep(within.min(PAUSE));
            return Vec::new();
        };
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(within.subsec_nanos()) };
        // What poll says is not looked at: the read tells.
        let _ = poll(&mut [PollFd::new(&*file, PollFlags::IN)], Some(&timeout));
        match file.read(&mut piece) {
            Ok(0) => {
                self.orphaned_since.get_or_insert_with(Instant::now);
                std::thread::sleep(within.min(PAUSE));
            }
            Ok(count) => {
                self.orphaned_since = None;
                return self.take(&piece[..count]);
            }
            // It would not, if there were no writer.
            Err(why) if why.kind() == ErrorKind::WouldBlock => self.orphaned_since = None,
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) => {
                self.note(why.to_string());
                self.file = None;
            }
        }
        Vec::new()
    }

    /// Whether the path is no longer what is open.
    fn is_gone(&self) -> bool {
        let place = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
        let open = self.file.as_ref().and_then(|file| file.metadata().ok()).map(place);
        open.is_none() || std::fs::metadata(&self.path).ok().map(place) != open
    }

    fn open(&mut self) {
        self.file = None;
        self.begun.clear();
        self.skips = false;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = rustix::fs::open(&self.path, flags, Mode::empty()).map(File::from);
        match opened.map_err(std::io::Error::from).and_then(|file| Ok((file.metadata()?, file))) {
            Ok((metadata, file)) if metadata.file_type().is_fifo() => {
                tracing::info!("reading {}", self.path.display());
                self.last_error = None;
                self.file = Some(file);
            }
            Ok(_) => self.note("it is no FIFO".to_owned()),
            Err(why) => self.note(why.to_string()),
        }
    }

    fn note(&mut self, why: String) {
        if self.last_error.as_ref() != Some(&why) {
            tracing::warn!("can't read {}, trying on: {why}", self.path.display());
            self.last_error = Some(why);
        }
    }

    fn take(&mut self, bytes: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        for byte in bytes {
            match *byte {
                b'\n' if self.skips => self.skips = false,
                b'\n' => lines.push(Line::Whole(std::mem::take(&mut self.begun))),
                _ if self.skips => {}
                byte => {
                    self.begun.push(byte);
                    if self.begun.len() > LINE_BYTES_MAX {
                        self.skips = true;
                        lines.push(Line::TooLong(std::mem::take(&mut self.begun)));
                    }
                }
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::time::Instant;

    use rustix::fs::{CWD, FileType, mknodat};

    use super::*;

    fn make(path: &Path) -> File {
        mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        File::options().read(true).write(true).open(path).unwrap()
    }

    fn next(fifo: &mut Fifo) -> Line {
        let end = Instant::now() + Duration::from_secs(10);
        loop {
            let lines = fifo.wait(WAIT_MAX);
            assert!(Instant::now() < end, "no line came");
            if let Some(line) = lines.into_iter().next() {
                return line;
            }
        }
    }

    #[test]
    fn a_fifo_that_comes_late_and_is_made_anew_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        let mut fifo = Fifo::at(&path);
        assert_eq!(fifo.wait(PAUSE), []);
        let mut writer = make(&path);
        writer.write_all(b"one\nhal").unwrap();
        assert_eq!(next(&mut fifo), Line::Whole(b"one".to_vec()));
        writer.write_all(b"f\n").unwrap();
        assert_eq!(next(&mut fifo), Line::Whole(b"half".to_vec()));
        assert_eq!(fifo.wait(PAUSE), []);
        assert_eq!(fifo.orphaned_for(), Duration::ZERO, "it has a writer, who says nothing");
        writer.write_all(b"never ended").unwrap();
        drop(writer);
        std::fs::remove_file(&path).unwrap();
        let mut writer = make(&path);
        writer.write_all(b"two\n").unwrap();
        assert_eq!(next(&mut fifo), Line::Whole(b"two".to_vec()));
    }

    #[test]
    fn a_writer_that_leaves_at_once_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        drop(make(&path));
        let mut fifo = Fifo::at(&path);
        assert_eq!(fifo.wait(PAUSE), []);
        assert!(fifo.orphaned_for() > Duration::ZERO);
        for text in ["one", "two"] {
            std::fs::write(&path, format!("{text}\n")).unwrap();
            assert_eq!(next(&mut fifo), Line::Whole(text.as_bytes().to_vec()));
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory_and_is_told_once() {
        let mut fifo = Fifo::at(Path::new("unused"));
        let mut told = 0;
        for _ in 0..1000 {
            told += fifo.take(&[b'x'; 4096]).len();
            assert!(fifo.begun.len() <= LINE_BYTES_MAX);
        }
        assert_eq!(told, 1);
        assert_eq!(fifo.take(b"\ngood\n"), [Line::Whole(b"good".to_vec())]);
    }

    #[test]
    fn a_plain_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"line\n").unwrap();
        let mut fifo = Fifo::at(&path);
        assert_eq!(fifo.wait(PAUSE), []);
        assert_eq!(fifo.last_error.as_deref(), Some("it is no FIFO"));
    }
}
