//! Who is let in: the users of `-Y`, and the gate that a connection stands before until it has named one (rule Q1).
//!
//! Lives here: the users' file, the comparison in constant time, what is answered before the gate opens. Not here: the
//! commands behind it (see `commands`), other ways to name a user; those ask [`Gate::admit`], too.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use hotspare_memcached::binary::REQUEST_MAGIC;
use hotspare_memcached::classic::Tokens;
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

use super::counters::Counters;

/// The largest file of users.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The longest `user password` (rule Q1).
const TOKEN_BYTES_MAX: u64 = 16384;

/// A line that is not whole by then is closed upon (rule Q1).
const LINE_BYTES_MAX: usize = 2048;

/// A whole line below this is closed upon (rule Q1).
const LINE_BYTES_MIN: usize = 6;

/// The users of a file, each a line `user:password`.
#[derive(Debug)]
pub(crate) struct Users {
    file: PathBuf,
    /// Of each user a digest: neither lengths nor words can be told from how long a comparison takes.
    digests: RwLock<Vec<[u8; 32]>>,
}

impl Users {
    pub(crate) fn load(file: &Path) -> Result<Users, String> {
        let digests = RwLock::new(read(file)?);
        Ok(Users { file: file.to_owned(), digests })
    }

    /// The users of a text, which is that of no file.
    pub(crate) fn parse(text: &[u8]) -> Result<Users, String> {
        let digests = RwLock::new(parse(Path::new(""), text)?);
        Ok(Users { file: PathBuf::new(), digests })
    }

    /// Reads the file again; if it can't be, the users stay as they were.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let digests = read(&self.file)?;
        *self.digests.write().unwrap_or_else(PoisonError::into_inner) = digests;
        Ok(())
    }

    fn contains(&self, user: &[u8], password: &[u8]) -> bool {
        let asked = digest(user, password);
        let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        // All of them, whichever it is.
        let found = digests.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&asked));
        found.into()
    }
}

fn read(file: &Path) -> Result<Vec<[u8; 32]>, String> {
    let name = file.display();
    let unreadable = |why| format!("can't read the users in {name}: {why}");
    let mut text = Vec::new();
    File::open(file)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text))
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("the file of users {name} has more than {FILE_BYTES_MAX} bytes"));
    }
    parse(file, &text)
}

fn parse(file: &Path, text: &[u8]) -> Result<Vec<[u8; 32]>, String> {
    let name = file.display();
    // Rule Z5: the last line may lack its end.
    let text = text.strip_suffix(b"\n").unwrap_or(text);
    let one = |(index, line): (usize, &[u8])| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon =
            line.iter().position(|byte| *byte == b':').filter(|colon| (1..line.len() - 1).contains(colon));
        let colon = colon.ok_or_else(|| format!("{name}, line {}: give user:password", index + 1))?;
        Ok(digest(&line[..colon], &line[colon + 1..]))
    };
    text.split(|byte| *byte == b'\n').enumerate().map(one).collect()
}

/// The length before the name keeps `a` with `bc` apart from `ab` with `c`.
fn digest(user: &[u8], password: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((user.len() as u64).to_le_bytes());
    hash.update(user);
    hash.update(password);
    hash.finalize().into()
}

/// Whether a connection may do what it likes.
#[derive(Debug)]
pub(crate) struct Gate {
    is_open: bool,
}

/// What a connection before the gate does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// So many bytes have been looked at and answered.
    Answered { consumed: usize, reply: &'static str },
    /// More input is needed.
    Incomplete { bytes_needed: usize },
    /// Not to be answered.
    Close,
}

impl Gate {
    /// Open from the start where nobody need be named.
    pub(crate) fn new(is_open: bool) -> Gate {
        Gate { is_open }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.is_open
    }

    /// Opens if that is a user's password. The one place where it opens.
    pub(crate) fn admit(&mut self, user: &[u8], password: &[u8], users: &Users, counters: &Counters) -> bool {
        counters.auth_cmds.add(1);
        self.is_open = users.contains(user, password);
        if !self.is_open {
            counters.auth_errors.add(1);
        }
        self.is_open
    }

    /// Looks for `set <any> <any> <any> <bytes>` and, behind it, `user password` (rule Q1).
    pub(crate) fn look(&mut self, input: &[u8], users: &Users, counters: &Counters) -> Look {
        // The binary protocol has no lines to wait for.
        if input.first() == Some(&REQUEST_MAGIC) {
            return Look::Close;
        }
        // A line is too long by its own bytes, however many of them have come.
        let begun = &input[..input.len().min(LINE_BYTES_MAX + 1)];
        let Some(line_end) = begun.iter().position(|byte| *byte == b'\n') else {
            let hopeless = begun.len() > LINE_BYTES_MAX;
            return if hopeless { Look::Close } else { Look::Incomplete { bytes_needed: input.len() + 1 } };
        };
        let line_bytes = line_end + 1;
        if line_bytes < LINE_BYTES_MIN {
            return Look::Close;
        }
        let line = input[..line_end].strip_suffix(b"\r").unwrap_or(&input[..line_end]);
        let Some(token_bytes) = token_bytes(line) else {
            return Look::Answered { consumed: line_bytes, reply: "CLIENT_ERROR unauthenticated\r\n" };
        };
        if token_bytes > TOKEN_BYTES_MAX {
            return Look::Answered { consumed: line_bytes, reply: "CLIENT_ERROR auth token too long\r\n" };
        }
        let consumed = line_bytes + token_bytes as usize + 2;
        let Some(block) = input.get(line_bytes..consumed) else {
            return Look::Incomplete { bytes_needed: consumed };
        };
        Look::Answered { consumed, reply: self.try_token(block, users, counters) }
    }

    fn try_token(&mut self, block: &[u8], users: &Users, counters: &Counters) -> &'static str {
        let Some(token) = block.strip_suffix(b"\r\n") else {
            return "CLIENT_ERROR bad command line termination\r\n";
        };
        let mut words = Tokens::new(token).iter();
        let (Some(user), Some(password)) = (words.next(), words.next()) else {
            return "CLIENT_ERROR bad authentication token format\r\n";
        };
        match self.admit(user, password, users, counters) {
            true => "STORED\r\n",
            false => "CLIENT_ERROR authentication failure\r\n",
        }
    }
}

/// The stated length of the data block, if the line is a `set`.
fn token_bytes(line: &[u8]) -> Option<u64> {
    let mut words = Tokens::new(line).iter();
    let name = words.next()?;
    let digits = words.nth(3).filter(|_| name == b"set")?;
    let all_digits = digits.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(digits).ok().filter(|_| all_digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn users(text: &str) -> Result<Users, String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        Users::load(file.path())
    }

    /// What a fresh connection is answered, and whether it is in then.
    fn look(input: &[u8]) -> (Look, bool) {
        let mut gate = Gate::new(false);
        let look = gate.look(input, &users("ann:other\nbob:secret").unwrap(), &Counters::default());
        (look, gate.is_open())
    }

    #[test]
    fn z5_a_file_may_lack_its_last_line_end() {
        for text in ["bob:secret", "bob:secret\n", "ann:x\r\nbob:secret\r\n"] {
            let users = users(text).unwrap();
            assert!(users.contains(b"bob", b"secret"), "{text:?}");
            for (user, password) in
                [("bob", "secre"), ("bob", "secret:"), ("bobs", "ecret"), ("", ""), ("secret", "bob")]
            {
                assert!(!users.contains(user.as_bytes(), password.as_bytes()), "{text:?}: {user} {password}");
            }
        }
    }

    #[test]
    fn a_file_that_names_no_user_in_some_line_is_refused_with_the_line() {
        for (text, line) in [("", 1), ("bob", 1), ("a:b\n\nc:d", 2), ("a:b\n:c\n", 2), ("a:b\nc:d\ne:", 3)] {
            let why = users(text).unwrap_err();
            assert!(why.contains(&format!("line {line}: give user:password")), "{text:?}: {why}");
        }
        assert!(Users::load(Path::new("/nonexistent")).unwrap_err().contains("can't read"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_users_by_their_lines_or_refused(
            lines in prop::collection::vec("[ab:\r\u{0}é]{0,6}", 1..6), ends: bool,
        ) {
            let text = lines.join("\n") + if ends { "\n" } else { "" };
            let is_user = |line: &&str| line.find(':').is_some_and(|colon| colon > 0 && colon + 1 < line.len());
            let lines: Vec<&str> = lines.iter().map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
            // With nothing behind the last line end there is one line less.
            let wrong = lines.iter().filter(|line| !is_user(line)).count();
            let has_empty_end = !ends && lines.last() == Some(&"") && !text.ends_with('\r') && lines.len() > 1;
            match Users::parse(text.as_bytes()) {
                Ok(users) => {
                    prop_assert_eq!(wrong, usize::from(has_empty_end));
                    for line in lines.into_iter().filter(is_user) {
                        let (name, password) = line.split_once(':').unwrap();
                        prop_assert!(users.contains(name.as_bytes(), password.as_bytes()));
                        prop_assert!(!users.contains(line.as_bytes(), b""));
                    }
                }
                Err(_) => prop_assert!(wrong > 0),
            }
        }
    }

    #[test]
    fn a_reload_that_fails_leaves_the_users_as_they_were() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "bob:old").unwrap();
        let users = Users::load(file.path()).unwrap();
        std::fs::write(file.path(), "bob:new").unwrap();
        users.reload().unwrap();
        assert!(users.contains(b"bob", b"new") && !users.contains(b"bob", b"old"));
        std::fs::write(file.path(), "nonsense").unwrap();
        users.reload().unwrap_err();
        assert!(users.contains(b"bob", b"new"));
    }

    #[test]
    fn q1_only_a_set_with_a_users_password_opens() {
        for block in ["bob secret", "  bob  secret ", "ann other", "bob secret and more"] {
            let input = format!("set any 1 x {} noreply\r\n{block}\r\nget a\r\n", block.len());
            let consumed = input.len() - "get a\r\n".len();
            assert_eq!(look(input.as_bytes()), (Look::Answered { consumed, reply: "STORED\r\n" }, true));
        }
        let refused = [
            ("get any\r\n", "unauthenticated"),
            ("add a 0 0 10\r\n", "unauthenticated"),
            ("set a 0 0\r\n", "unauthenticated"),
            ("set a 0 0 -1\r\n", "unauthenticated"),
            ("set a 0 0 16385\r\n", "auth token too long"),
            ("set a 0 0 2147483646\r\n", "auth token too long"),
            ("set a 0 0 9\r\nbobsecret\r\n", "bad authentication token format"),
            ("set a 0 0 4\r\nbob \r\n", "bad authentication token format"),
            ("set a 0 0 10\r\nbob secretxx", "bad command line termination"),
            ("set a 0 0 9\r\nbob secre\r\n", "authentication failure"),
            ("set a 0 0 10\r\nann secret\r\n", "authentication failure"),
        ];
        for (input, why) in refused {
            let (look, open) = look(input.as_bytes());
            let Look::Answered { consumed, reply } = look else { panic!("{input:?}: {look:?}") };
            assert_eq!((consumed, reply, open), (input.len(), &*format!("CLIENT_ERROR {why}\r\n"), false));
        }
    }

    #[test]
    fn q1_what_can_be_no_set_is_closed_upon() {
        let long = [&[b'x'; 2049][..], b"\r\n"].concat();
        for input in [&b"get\r\n"[..], b"\n", &long[..2049], &long, b"\x80\x0b", b"\x80\x0b\0\0\0\0\n"] {
            assert_eq!(look(input), (Look::Close, false));
        }
        assert_eq!(look(&[b'x'; 2048]).0, Look::Incomplete { bytes_needed: 2049 });
        assert_eq!(look(b"set a 0 0 10\r\nbob").0, Look::Incomplete { bytes_needed: 26 });
    }
}
