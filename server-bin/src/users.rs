//! Names and passwords of clients, from a file of `user:password` lines as memcached has it (rules Q1, Q2, Z5).
//!
//! Lives here: reading them, again too, and comparing without telling by the time it takes who is there or how far a
//! guess was right. Not here: what a client may do before it has named itself (see `server::auth`, `server::login`).

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The longest file, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Of a user: neither lengths nor words can be told from how long a comparison takes.
type Digest = [u8; 32];

/// Who may log in. A clone is the same users, and knows of every reload.
#[derive(Clone)]
pub struct Users {
    /// From the root: it is read again wherever the process is then. None for users from a text.
    file: Option<PathBuf>,
    digests: Arc<RwLock<Vec<Digest>>>,
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users").field("file", &self.file).finish_non_exhaustive()
    }
}

impl Users {
    /// Reads a file.
    ///
    /// # Errors
    /// It can't be read, is longer than a mebibyte, names nobody, or has a line that is no `user:password`.
    pub fn read(file: &Path) -> Result<Users, String> {
        let file = std::path::absolute(file).map_err(|why| unreadable(file, &why))?;
        let digests = Arc::new(RwLock::new(digests_in(&file)?));
        Ok(Users { file: Some(file), digests })
    }

    /// Reads lines. A password is all behind the first colon; empty lines are none, and the last may lack its end.
    ///
    /// # Errors
    /// Nobody is named, or a line is no `user:password`.
    pub fn parse(text: &[u8]) -> Result<Users, String> {
        Ok(Users { file: None, digests: Arc::new(RwLock::new(digests_of(text)?)) })
    }

    /// Reads the file again, if they are from one. Who has logged in stays so.
    ///
    /// # Errors
    /// As [`Users::read`]; the users stay as they were then.
    pub fn reload(&self) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let digests = digests_in(file)?;
        *self.digests.write().unwrap_or_else(PoisonError::into_inner) = digests;
        Ok(())
    }

    /// Whether this is a user's password. Each user is compared, whoever fits.
    pub fn admit(&self, name: &[u8], password: &[u8]) -> bool {
        let asked = digest(name, password);
        let digests = self.digests.read().unwrap_or_else(PoisonError::into_inner);
        digests.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&asked)).into()
    }
}

fn unreadable(file: &Path, why: &std::io::Error) -> String {
    format!("can't read the users in {}: {why}", file.display())
}

fn digests_in(file: &Path) -> Result<Vec<Digest>, String> {
    let mut text = Vec::new();
    File::open(file)
        .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut text))
        .map_err(|why| unreadable(file, &why))?;
    let wrong = |why| format!("{} {why}; give user:password lines", file.display());
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(wrong(format!("has more than {FILE_BYTES_MAX} bytes")));
    }
    digests_of(&text).map_err(wrong)
}

fn digests_of(text: &[u8]) -> Result<Vec<Digest>, String> {
    let mut digests = Vec::new();
    for (index, line) in text.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.is_empty() {
            continue;
        }
        let colon = line.iter().position(|byte| *byte == b':').filter(|colon| *colon > 0);
        let colon = colon.ok_or_else(|| format!("has no user and colon in line {}", index + 1))?;
        digests.push(digest(&line[..colon], &line[colon + 1..]));
    }
    if digests.is_empty() {
        return Err("names nobody".to_owned());
    }
    Ok(digests)
}

/// The length before the name keeps `a` with `bc` apart from `ab` with `c`.
fn digest(name: &[u8], password: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(name);
    hash.update(password);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn q2_lines_are_users_and_everything_behind_the_colon_is_the_password() {
        let users = Users::parse(b"ada:pass:word\r\n\nbob:\neve:x").unwrap();
        assert!(users.admit(b"ada", b"pass:word"));
        assert!(users.admit(b"bob", b""));
        assert!(users.admit(b"eve", b"x"));
        let strangers = [
            ("ada", "pass"),
            ("ada", "x"),
            ("eve", ""),
            ("", ""),
            ("nobody", "x"),
            ("ada:pass", "word"),
            ("evex", ""),
        ];
        for (name, password) in strangers {
            assert!(!users.admit(name.as_bytes(), password.as_bytes()), "{name}:{password}");
        }
    }

    #[test]
    fn z5_a_file_may_lack_its_last_line_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for text in ["bob:secret", "bob:secret\n", "ann:x\r\nbob:secret\r\n"] {
            std::fs::write(file.path(), text).unwrap();
            let users = Users::read(file.path()).unwrap();
            assert!(users.admit(b"bob", b"secret") && !users.admit(b"bob", b"secre"), "{text:?}");
            assert!(!format!("{users:?}").contains("secret"), "a log must not have it");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_users_by_their_lines_or_refused(
            lines in prop::collection::vec("[ab:\r\u{0}é]{0,6}", 0..6), ends: bool,
        ) {
            let text = lines.join("\n") + if ends { "\n" } else { "" };
            let lines = || lines.iter().map(|line| line.strip_suffix('\r').unwrap_or(line)).filter(|line| !line.is_empty());
            match Users::parse(text.as_bytes()) {
                Ok(users) => for line in lines() {
                    let (name, password) = line.split_once(':').unwrap();
                    prop_assert!(users.admit(name.as_bytes(), password.as_bytes()));
                    let other = format!("{password}x");
                    prop_assert!(!users.admit(name.as_bytes(), other.as_bytes()));
                },
                Err(_) => prop_assert!(lines().next().is_none() || lines().any(|line| line.find(':').unwrap_or(0) == 0)),
            }
        }
    }

    #[test]
    fn what_is_no_list_of_users_is_refused() {
        assert!(Users::parse(b"\n").unwrap_err().contains("nobody"));
        assert!(Users::parse(b"a:b\nword\n").unwrap_err().contains("line 2"));
        assert!(Users::parse(b":password").is_err());
        assert!(Users::read(Path::new("/nonexistent")).unwrap_err().contains("can't read"));
        assert!(Users::read(Path::new("/dev/zero")).unwrap_err().contains("more than 1048576 bytes"));
    }

    #[test]
    fn q1_q2_a_reload_is_everybodys_and_one_that_fails_changes_nothing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "bob:old").unwrap();
        let users = Users::read(file.path()).unwrap();
        let other = users.clone();
        std::fs::write(file.path(), "bob:new").unwrap();
        other.reload().unwrap();
        assert!(users.admit(b"bob", b"new") && !users.admit(b"bob", b"old"));
        std::fs::write(file.path(), "nonsense").unwrap();
        users.reload().unwrap_err();
        assert!(users.admit(b"bob", b"new"));
    }
}
