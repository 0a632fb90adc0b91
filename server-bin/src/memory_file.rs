//! The memory file (`-e`): a graceful stop leaves all items in it, and the next start takes them out.
//!
//! Lives here: the file's names and when which of them exists. Not here: what is in it (see `hotspare::Cache::save_to`).
//!
//! ```text
//!   FILE.unfinished ──(whole, and on the disk)──> FILE ──(the next start reads it)──> FILE.taken ──(it serves)──> gone
//!                                                  ^────────(it does not start)──────────┤
//!                                                                    FILE.refused <──(it makes no sense)
//! ```
//! So nobody ever starts from a file twice: what it holds is old as soon as a client has written.

use std::fs::{self, File, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use hotspare::{Cache, Config, RestoreError};

use crate::EXIT_SYSTEM;

/// The file that `-e` names.
#[derive(Debug)]
pub(crate) struct MemoryFile {
    path: PathBuf,
    /// What was taken out is in use, or nothing was taken.
    is_settled: bool,
}

impl MemoryFile {
    /// The file, if it can be one.
    pub(crate) fn at(path: PathBuf) -> Result<MemoryFile, (u8, String)> {
        match fs::metadata(&path) {
            Ok(found) if !found.is_file() => Err(failure(&path, &"it is no regular file")),
            Err(why) if why.kind() != ErrorKind::NotFound => Err(failure(&path, &why)),
            _ => Ok(MemoryFile { path, is_settled: true }),
        }
    }

    /// The cache that an earlier process saved. None if there is none, or the file is refused; the log says so.
    pub(crate) fn restore(&mut self, config: &Config) -> Option<Cache> {
        let (began, name) = (Instant::now(), self.path.display().to_string());
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(why) if why.kind() == ErrorKind::NotFound => {
                tracing::info!("no memory file {name}: starting empty");
                return None;
            }
            Err(why) => {
                tracing::error!("the memory file {name} can't be read: {why}; starting empty");
                return None;
            }
        };
        if let Err(why) = fs::rename(&self.path, self.named("taken")) {
            tracing::error!(
                "the memory file {name} can't be taken away, so it is not used: {why}; starting empty"
            );
            return None;
        }
        self.is_settled = false;
        match Cache::restore_from(config.clone(), file) {
            Ok((cache, restored)) => {
                let (items, expired, left_out) = (restored.items, restored.expired, restored.left_out);
                let ms = began.elapsed().as_millis();
                tracing::info!(
                    "restored {items} items from the memory file {name} in {ms} ms; {expired} have expired, {left_out} had no room"
                );
                Some(cache)
            }
            // The start fails for the same reason.
            Err(RestoreError::Config(_)) => None,
            Err(why) => {
                self.set_aside(&name, &why);
                None
            }
        }
    }

    fn set_aside(&mut self, name: &str, why: &RestoreError) {
        let aside = self.named("refused");
        match fs::rename(self.named("taken"), &aside) {
            Ok(()) => tracing::error!(
                "the memory file {name} is refused: {why}; starting empty, and it is kept as {}",
                aside.display()
            ),
            Err(_) => tracing::error!("the memory file {name} is refused: {why}; starting empty"),
        }
        self.is_settled = true;
    }

    /// It is being served from now on: the file is gone for good.
    pub(crate) fn settle(&mut self) -> Result<(), (u8, String)> {
        if !std::mem::replace(&mut self.is_settled, true) {
            fs::remove_file(self.named("taken")).map_err(|why| failure(&self.path, &why))?;
        }
        Ok(())
    }

    /// An error if it can't be written by who this process is now.
    pub(crate) fn check_writable(&self) -> Result<(), (u8, String)> {
        let unfinished = self.named("unfinished");
        create(&unfinished)
            .and_then(|_| fs::remove_file(&unfinished))
            .map_err(|why| failure(&self.path, &why))
    }

    /// Writes all that the cache holds; nobody may write to it any more.
    pub(crate) fn save(&self, cache: &Cache) -> Result<(), (u8, String)> {
        let began = Instant::now();
        let unfinished = self.named("unfinished");
        let saved = self.write(&unfinished, cache);
        match saved {
            Ok(items) => {
                let (name, ms) = (self.path.display(), began.elapsed().as_millis());
                tracing::info!("saved {items} items to the memory file {name} in {ms} ms");
                Ok(())
            }
            Err(why) => {
                // It may not be there at all.
                let _ = fs::remove_file(&unfinished);
                Err((
                    EXIT_SYSTEM,
                    format!("nothing was saved to the memory file {}: {why}", self.path.display()),
                ))
            }
        }
    }

    fn write(&self, unfinished: &Path, cache: &Cache) -> Result<u64, Box<dyn std::error::Error>> {
        let file = create(unfinished)?;
        let items = cache.save_to(&file)?;
        file.sync_all()?;
        fs::rename(unfinished, &self.path)?;
        if let Some(folder) = self.path.parent() {
            File::open(folder)?.sync_all()?;
        }
        Ok(items)
    }

    fn named(&self, state: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(".");
        name.push(state);
        name.into()
    }
}

impl Drop for MemoryFile {
    /// The server did not start, so nothing was written since: the next try may have it.
    fn drop(&mut self) {
        if !self.is_settled {
            // Whoever can't keep it starts empty.
            let _ = fs::rename(self.named("taken"), &self.path);
        }
    }
}

/// A new file that its owner alone can read, in the place of what is left of an earlier one.
fn create(path: &Path) -> std::io::Result<File> {
    match fs::remove_file(path) {
        Err(why) if why.kind() != ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn failure(path: &Path, why: &dyn std::fmt::Display) -> (u8, String) {
    (EXIT_SYSTEM, format!("the memory file {} can't be used: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use hotspare::Expiry;

    fn names(folder: &Path) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut names: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_there_until_it_is_served_from_and_comes_back_if_that_never_happens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        let config = Config::new();
        let cache = Cache::new(config.clone()).unwrap();
        cache.set("k", "v", Expiry::Never).unwrap();
        let mut file = MemoryFile::at(path.clone()).unwrap();
        assert!(file.restore(&config).is_none());
        file.check_writable().unwrap();
        assert!(names(folder.path()).is_empty());
        file.save(&cache).unwrap();
        for _ in 0..2 {
            assert_eq!(names(folder.path()), ["m"]);
            let mut file = MemoryFile::at(path.clone()).unwrap();
            assert!(file.restore(&config).unwrap().contains("k").unwrap());
            assert_eq!(names(folder.path()), ["m.taken"]);
        }
        let mut file = MemoryFile::at(path.clone()).unwrap();
        file.restore(&config).unwrap();
        file.settle().unwrap();
        drop(file);
        assert!(names(folder.path()).is_empty());
    }

    #[test]
    fn what_is_no_memory_file_is_kept_aside_and_what_is_no_file_is_no_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m");
        fs::write(&path, "precious").unwrap();
        assert!(MemoryFile::at(path).unwrap().restore(&Config::new()).is_none());
        assert_eq!(names(folder.path()), ["m.refused"]);
        assert_eq!(fs::read(folder.path().join("m.refused")).unwrap(), b"precious");
        assert!(MemoryFile::at(folder.path().to_owned()).is_err());
        assert!(MemoryFile::at("/dev/null".into()).is_err());
        let file = MemoryFile::at(folder.path().join("missing/m")).unwrap();
        assert!(file.check_writable().is_err());
        assert!(file.save(&Cache::new(Config::new()).unwrap()).is_err());
    }
}
