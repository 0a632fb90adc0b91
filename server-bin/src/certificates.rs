//! The command `cert`: a group's authority and a certificate for each of its nodes, as files.
//!
//! Lives here: names, files and their modes. Not here: what is in a certificate (see `hotspare_tls::issue`).

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use hotspare_tls::issue::{Authority, Issued};

use crate::args::CertOptions;

/// The name of the authority's files.
const AUTHORITY: &str = "ca";

const PUBLIC: u32 = 0o644;
const PRIVATE: u32 = 0o600;
const FOLDER: u32 = 0o755;

/// The longest name: a host's.
const NAME_BYTES_MAX: usize = 253;

/// A node: the name of its files, then all hosts at which it is dialled, that name included.
type Hosts<'a> = Vec<&'a str>;

/// Makes the files, and says how to use them.
pub(crate) fn run(options: &CertOptions) -> ExitCode {
    match make(&options.folder, &options.names) {
        Ok(text) => {
            crate::print(&text);
            ExitCode::SUCCESS
        }
        Err(why) => {
            crate::say(&why);
            ExitCode::FAILURE
        }
    }
}

fn make(folder: &Path, names: &[String]) -> Result<String, String> {
    let nodes = names.iter().map(|name| hosts(name)).collect::<Result<Vec<_>, _>>()?;
    if let Some(twice) = (1..nodes.len()).find(|&at| nodes[..at].iter().any(|node| node[0] == nodes[at][0])) {
        return Err(format!("--names: {} is there twice", nodes[twice][0]));
    }
    let refused = |name: &str, why: &dyn std::fmt::Display| format!("can't certify {name}: {why}");
    let authority = Authority::new("Hotspare group").map_err(|why| refused(AUTHORITY, &why))?;
    let mut made = vec![(AUTHORITY, authority.pem())];
    for node in &nodes {
        made.push((node[0], authority.issue(node[0], node).map_err(|why| refused(node[0], &why))?));
    }
    write_all(folder, &made)?;
    let shown = folder.display();
    let node = nodes[0][0];
    Ok(format!(
        "made {shown}/{AUTHORITY}.pem and a certificate with its key for each of {} nodes\n\
         Give each node its own two files and {AUTHORITY}.pem, as in\n  \
         --replication-tls-ca {shown}/{AUTHORITY}.pem --replication-tls-cert {shown}/{node}.pem \
         --replication-tls-key {shown}/{node}.key\n\
         Keep {AUTHORITY}.key away from all of them: who has it can join the group.",
        nodes.len()
    ))
}

/// `NAME[/HOST...]`, checked: the name becomes a file's.
fn hosts(text: &str) -> Result<Hosts<'_>, String> {
    let hosts: Hosts<'_> = text.split('/').collect();
    let is_plain = |host: &&str| {
        let bytes = host.as_bytes();
        let plain = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-.:_".contains(byte));
        plain && bytes.first().is_some_and(|first| first.is_ascii_alphanumeric() || *first == b':')
    };
    if !hosts.iter().all(is_plain) || hosts.iter().any(|host| host.len() > NAME_BYTES_MAX) {
        return Err(format!("--names {text:?}: give host names or IP addresses, NAME or NAME/HOST/HOST"));
    }
    if hosts[0] == AUTHORITY {
        return Err(format!("--names {AUTHORITY}: the authority has that name"));
    }
    Ok(hosts)
}

/// Writes all files or none; a file that is there already is never touched.
fn write_all(folder: &Path, made: &[(&str, Issued)]) -> Result<(), String> {
    let unwritable = |file: &Path, why: std::io::Error| format!("can't write {}: {why}", file.display());
    fs::DirBuilder::new()
        .recursive(true)
        .mode(FOLDER)
        .create(folder)
        .map_err(|why| unwritable(folder, why))?;
    let mut written: Vec<PathBuf> = Vec::new();
    for (name, issued) in made {
        for (end, text, mode) in [("pem", &issued.certificate, PUBLIC), ("key", &issued.key, PRIVATE)] {
            let file = folder.join(format!("{name}.{end}"));
            let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&file);
            let outcome = opened.and_then(|mut opened| {
                written.push(file.clone());
                opened.write_all(text.as_bytes())
            });
            if let Err(why) = outcome {
                // Half a group is of no use; what can't be removed was not there before.
                written.iter().for_each(|file| drop(fs::remove_file(file)));
                return Err(unwritable(&file, why));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use hotspare_tls::Credentials;

    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_pair_gets_keys_that_only_its_owner_reads_and_that_fit() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new");
        make(&inner, &names(&["cache-1.example/10.0.0.1", "::1"])).unwrap();
        for name in ["cache-1.example", "::1"] {
            let file = |end: &str| inner.join(format!("{name}.{end}"));
            Credentials::read(&inner.join("ca.pem"), &file("pem"), &file("key")).unwrap();
        }
        for entry in fs::read_dir(&inner).unwrap() {
            let path = entry.unwrap().path();
            let is_key = path.extension().unwrap() == "key";
            let mode = path.metadata().unwrap().permissions().mode() & 0o777;
            assert!(!is_key || mode & 0o077 == 0, "{mode:o}: others can read {}", path.display());
        }
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 6);
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_left_half_done() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("two.key"), "mine").unwrap();
        let why = make(folder.path(), &names(&["one", "two"])).unwrap_err();
        assert!(why.contains("two.key"), "{why}");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(fs::read_to_string(folder.path().join("two.key")).unwrap(), "mine");
    }

    #[test]
    fn names_that_are_no_hosts_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for bad in
            [&["../one"][..], &[""], &[".hidden"], &["a b"], &["ca"], &["one", "one"], &["one/"], &["-x"]]
        {
            assert!(make(folder.path(), &names(bad)).is_err(), "{bad:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
