//! What makes a server a daemon: a life in the background, a pid file, another user, locked memory, core files.
//!
//! Lives here: `-d`, `-P`, `-u`, `-k`, `-r`. Not here: in which order they happen (see `run`).
//!
//! The background is a second process of the same program, started by the first with one hidden flag more. The first
//! waits until the second serves, or ends with its exit code: what is wrong at the start is said where it was started.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{fchown, lchown};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::unistd::{Gid, Uid, User, initgroups, setgid, setuid};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, setsid};

use crate::{EXIT_SYSTEM, EXIT_USER};

/// The flag that the second process gets.
pub(crate) const BACKGROUND_FLAG: &str = "--in-background";

/// What the second process says on its standard output when it serves.
const READY: &[u8] = b"ready";

/// Descriptors beside those of the clients: listeners, pollers, replication, files.
pub(crate) const DESCRIPTORS_RESERVED: u64 = 64;

/// Starts the second process; gives the first one's exit code.
pub(crate) fn start_in_background(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    match start_second(arguments) {
        Ok(code) => ExitCode::from(code),
        Err(why) => {
            crate::say(&format!("can't go to the background: {why}"));
            ExitCode::from(EXIT_SYSTEM)
        }
    }
}

fn start_second(arguments: impl Iterator<Item = OsString>) -> std::io::Result<u8> {
    let mut second = Command::new(std::env::current_exe()?)
        .arg(BACKGROUND_FLAG)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = Vec::new();
    if let Some(mut stdout) = second.stdout.take() {
        // Its end comes when it serves, or with the process.
        stdout.read_to_end(&mut said)?;
    }
    if said == READY {
        return Ok(0);
    }
    Ok(second.wait()?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(EXIT_SYSTEM))
}

/// Leaves the terminal's session, in the second process.
pub(crate) fn leave_session() {
    // Who leads a group already has nothing to leave.
    let _ = setsid();
}

/// Says that this second process serves, and lets go of what it was started with: standard streams, and the folder
/// unless core files are to be written there.
pub(crate) fn settle(is_verbose: bool, keeps_folder: bool) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(READY)?;
    stdout.flush()?;
    let nowhere = File::options().read(true).write(true).open("/dev/null")?;
    if !keeps_folder {
        std::env::set_current_dir("/")?;
    }
    if !is_verbose {
        rustix::stdio::dup2_stderr(&nowhere)?;
    }
    // The last: it tells the first process that all is done.
    Ok(rustix::stdio::dup2_stdout(&nowhere)?)
}

/// The file with the process's id, removed with this value, or emptied where it can't be.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    text: String,
    /// Open, so that nobody who may write to its folder has another one put in its place.
    file: File,
}

impl PidFile {
    /// Complete when it appears.
    pub(crate) fn write(path: &Path) -> std::io::Result<PidFile> {
        let text = format!("{}\n", std::process::id());
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(".unfinished");
        // One that an earlier process left, or that was put there to have another file written.
        let _ = std::fs::remove_file(&unfinished);
        let mut file = File::options().write(true).create_new(true).open(&unfinished)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&unfinished, path)?;
        Ok(PidFile { path: path.to_owned(), text, file })
    }

    /// Makes it the user's that this process is about to become. It is the user's with memcached, too, which writes it later.
    pub(crate) fn give_to(&self, user: &User) {
        if let Err(why) = fchown(&self.file, Some(user.uid.as_raw()), Some(user.gid.as_raw())) {
            tracing::warn!(%why, "the pid file may stay behind: it can't be given to the user {}", user.name);
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A server started since has its own id there.
        if std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
            && std::fs::remove_file(&self.path).is_err()
        {
            // Another user (`-u`) may not change the folder. Without the id nobody takes another process for this one.
            let _ = self.file.set_len(0);
        }
    }
}

/// The user to become: none unless this is root, as memcached does.
pub(crate) fn find_user(name: &str) -> Result<Option<User>, (u8, String)> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(Some(user)),
        Ok(None) => Err((
            EXIT_USER,
            format!("-u: can't find the user {name:?} to switch to; give one that the system has"),
        )),
        Err(why) => Err((EXIT_SYSTEM, format!("can't look for the user {name}: {why}"))),
    }
}

/// Becomes the user, in all threads, with no way back. The unix socket becomes the user's, too: its mode counts from there.
pub(crate) fn become_user(user: &User, unix_socket: Option<&Path>) -> Result<(), (u8, String)> {
    let failure = |why: String| (EXIT_SYSTEM, format!("can't become the user {}: {why}", user.name));
    if let Some(path) = unix_socket {
        lchown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
            .map_err(|why| failure(format!("{}: {why}", path.display())))?;
    }
    let name = std::ffi::CString::new(user.name.as_str()).map_err(|why| failure(why.to_string()))?;
    initgroups(&name, user.gid)
        .and_then(|()| setgid(user.gid))
        .and_then(|()| setuid(user.uid))
        .map_err(|why| failure(why.to_string()))?;
    if Uid::effective() != user.uid || Gid::effective() != user.gid {
        return Err(failure("the system kept the old one".to_owned()));
    }
    Ok(())
}

/// Allows this process the descriptors for so many connections, as far as the system lets it.
pub(crate) fn raise_descriptor_limit(connections_max: usize) {
    let wanted = connections_max as u64 + DESCRIPTORS_RESERVED;
    let allowed = raise(Resource::Nofile, Some(wanted));
    if allowed.is_some_and(|allowed| allowed < wanted) {
        tracing::warn!(allowed, wanted, "fewer descriptors are allowed than -c connections may need");
    }
}

/// Lets a crash leave a whole core file, as far as the system lets it.
pub(crate) fn allow_core_files() {
    if let Some(bytes) = raise(Resource::Core, None) {
        tracing::warn!(bytes, "core files stay limited");
    }
}

/// Keeps what this process has and takes in memory. With a limit on that, later allocations would fail: then nothing is
/// locked.
pub(crate) fn lock_memory() {
    if let Some(bytes) = raise(Resource::Memlock, None) {
        return tracing::warn!(bytes, "memory is not locked: only so much may be");
    }
    // Pages count when they are touched: what the cache reserves, it may never use.
    match mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT) {
        Ok(()) => tracing::info!("memory is locked"),
        Err(why) => tracing::warn!(%why, "memory is not locked"),
    }
}

/// Raises a limit to `wanted`, none being no limit, or as far as the system lets this process; gives what it is then.
fn raise(resource: Resource, wanted: Option<u64>) -> Option<u64> {
    let before = getrlimit(resource);
    let enough = |limit: Option<u64>| match (limit, wanted) {
        (None, _) => true,
        (Some(limit), Some(wanted)) => limit >= wanted,
        (Some(_), None) => false,
    };
    if !enough(before.current) {
        let maximum = if enough(before.maximum) { before.maximum } else { wanted };
        // Above the maximum only root may go; up to it everybody may.
        let _ = setrlimit(resource, Rlimit { current: wanted, maximum })
            .or_else(|_| setrlimit(resource, Rlimit { current: before.maximum, maximum: before.maximum }));
    }
    getrlimit(resource).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_file_is_removed_by_whose_it_is_and_by_nobody_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pid");
        let file = PidFile::write(&path).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        drop(file);
        assert!(!path.exists());
        let file = PidFile::write(&path).unwrap();
        std::fs::write(&path, "1\n").unwrap();
        drop(file);
        assert!(path.exists());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(PidFile::write(&folder.path().join("missing/pid")).is_err());
    }
}
