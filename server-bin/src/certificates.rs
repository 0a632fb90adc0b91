//! The command `cert`: a group's authority and a certificate for each of its nodes, as files.
//!
//! Lives here: names, files and their modes, adding nodes later. Not here: what is in a certificate (see `hotspare_tls::issue`).

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
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
    let mut made = Vec::new();
    let (authority, was_there) = match find_authority(folder)? {
        Some(authority) => (authority, true),
        None => {
            let authority = Authority::new("Hotspare group").map_err(|why| refused(AUTHORITY, &why))?;
            made.push((AUTHORITY, authority.pem()));
            (authority, false)
        }
    };
    for node in &nodes {
        made.push((node[0], authority.issue(node[0], node).map_err(|why| refused(node[0], &why))?));
    }
    write_all(folder, &made)?;
    Ok(summary(folder, &nodes, was_there))
}

/// The authority that an earlier call has made in this folder; `None` if none of its files is there.
fn find_authority(folder: &Path) -> Result<Option<Authority>, String> {
    let read = |end: &str| {
        let file = folder.join(format!("{AUTHORITY}.{end}"));
        match fs::read_to_string(&file) {
            Ok(text) => Ok(Some(text)),
            Err(why) if why.kind() == ErrorKind::NotFound => Ok(None),
            Err(why) => Err(format!("can't read {}: {why}", file.display())),
        }
    };
    let shown = folder.display();
    match (read("pem")?, read("key")?) {
        (None, None) => Ok(None),
        (Some(certificate), Some(key)) => match Authority::from_pem(&certificate, &key) {
            Ok(authority) => Ok(Some(authority)),
            Err(why) => Err(format!("can't sign with {shown}/{AUTHORITY}.pem and {AUTHORITY}.key: {why}")),
        },
        (Some(_), None) => Err(format!(
            "{shown} has {AUTHORITY}.pem but not {AUTHORITY}.key, without which no node can be added; put the key there, or \
             begin a new group in an empty folder"
        )),
        (None, Some(_)) => {
            Err(format!("{shown} has {AUTHORITY}.key but not {AUTHORITY}.pem; put it there as well"))
        }
    }
}

/// What was made, what to do with it, and what it will not do.
fn summary(folder: &Path, nodes: &[Hosts<'_>], was_there: bool) -> String {
    let (shown, node) = (folder.display(), nodes[0][0]);
    let nodes_made = match nodes.len() {
        1 => format!("a certificate with its key for {node}"),
        count => format!("a certificate with its key for each of {count} nodes"),
    };
    let made = match was_there {
        true => format!("made {nodes_made}, signed by the authority that was there, {shown}/{AUTHORITY}.pem"),
        false => format!("made {shown}/{AUTHORITY}.pem and {nodes_made}"),
    };
    let mut text = format!(
        "{made}\n\
         Give each node its own two files and {AUTHORITY}.pem, as in\n  \
         --replication-tls-ca {shown}/{AUTHORITY}.pem --replication-tls-cert {shown}/{node}.pem \
         --replication-tls-key {shown}/{node}.key\n\
         Keep {AUTHORITY}.key away from all of them: who has it can join the group."
    );
    let is_address = |host: &&str| host.parse::<std::net::IpAddr>().is_ok();
    let unnamed: Vec<&str> =
        nodes.iter().filter(|node| !node.iter().any(is_address)).map(|node| node[0]).collect();
    if let Some(first) = unnamed.first() {
        text += &format!(
            "\nNo IP address is named for {}: peers reach them on this machine only, for nodes tell each other the address \
             of --replication-listen. Across machines say --names {first}/10.0.0.1 (after removing {first}.pem and .key).",
            unnamed.join(", ")
        );
    }
    text
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
    let unwritable = |file: &Path, why: std::io::Error| match why.kind() {
        ErrorKind::AlreadyExists => format!(
            "{} is there already and is never overwritten, so nothing was made; name another node, or move it away",
            file.display()
        ),
        _ => format!("can't write {}: {why}", file.display()),
    };
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
    fn a_node_is_added_to_the_authority_that_is_there_and_the_authority_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let read = |name: &str| fs::read_to_string(at(name)).unwrap();
        let first = make(folder.path(), &names(&["one/10.0.0.1"])).unwrap();
        assert!(first.contains("ca.pem and a certificate") && !first.contains("No IP address"), "{first}");
        let before = ["ca.pem", "ca.key", "one.pem", "one.key"].map(read);
        let later = make(folder.path(), &names(&["two/10.0.0.2"])).unwrap();
        assert!(later.contains("two") && later.contains("that was there"), "{later}");
        Credentials::read(&at("ca.pem"), &at("two.pem"), &at("two.key")).unwrap();
        let why = make(folder.path(), &names(&["three", "one"])).unwrap_err();
        assert!(why.contains("one.pem is there already"), "{why}");
        assert!(!at("three.pem").exists());
        assert_eq!(["ca.pem", "ca.key", "one.pem", "one.key"].map(read), before);
        let key = read("ca.key");
        fs::write(at("ca.key"), read("two.key")).unwrap();
        let why = make(folder.path(), &names(&["four"])).unwrap_err();
        assert!(why.contains("the key is not the certificate's"), "{why}");
        fs::remove_file(at("ca.key")).unwrap();
        let why = make(folder.path(), &names(&["four"])).unwrap_err();
        assert!(why.contains("not ca.key"), "{why}");
        fs::write(at("ca.key"), key).unwrap();
        fs::remove_file(at("ca.pem")).unwrap();
        assert!(make(folder.path(), &names(&["four"])).unwrap_err().contains("not ca.pem"));
        assert!(!at("four.pem").exists());
    }

    #[test]
    fn a_node_without_an_address_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let told = make(folder.path(), &names(&["one", "two/10.0.0.2", "10.0.0.3", "four/host"])).unwrap();
        assert!(told.contains("No IP address is named for one, four:"), "{told}");
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
