//! Two processes of one service: one dies, the other has everything.
//!
//! Run it without arguments: it starts itself again as the process that will die.
//! `cargo run --release -p hotspare-tcp --example warm_spare`

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use hotspare::{Cache, Config, Expiry, ReplicationConfig};
use hotspare_tcp::{Node, Options};

/// The service's first process: it caches, and ships what it caches.
fn primary() -> Result<(), Box<dyn Error>> {
    let cache = Cache::new(Config::new().replication(ReplicationConfig::primary()))?;
    let node = Node::start(&cache, Options::new().listen("127.0.0.1:0".parse()?))?;
    for user in 0..10_000 {
        cache.set(format!("user:{user}"), format!("profile of {user}"), Expiry::Never)?;
    }
    println!("{}", node.listen_address().ok_or("it listens")?);
    loop {
        std::thread::park();
    }
}

/// The second process: a warm copy, which takes over.
fn spare(primary: &str) -> Result<(Cache, Node), Box<dyn Error>> {
    let cache = Cache::new(Config::new().replication(ReplicationConfig::replica_of(primary)))?;
    let node = Node::start(&cache, Options::new().listen("127.0.0.1:0".parse()?))?;
    while cache.status().promotable.is_err() {
        std::thread::yield_now();
    }
    let refused = cache.set("user:1", "x", Expiry::Never).unwrap_err();
    println!("a write to the spare: {refused}");
    Ok((cache, node))
}

fn main() -> Result<(), Box<dyn Error>> {
    if std::env::args().nth(1).as_deref() == Some("primary") {
        return primary();
    }
    let mut first = Command::new(std::env::current_exe()?).arg("primary").stdout(Stdio::piped()).spawn()?;
    let mut address = String::new();
    BufReader::new(first.stdout.take().ok_or("piped")?).read_line(&mut address)?;
    let (cache, _node) = spare(address.trim())?;
    first.kill()?; // SIGKILL: nothing is said, nothing is flushed
    first.wait()?;
    let term = cache.promote(false)?;
    let kept = (0..10_000).filter(|user| matches!(cache.get(format!("user:{user}")), Ok(Some(_)))).count();
    println!(
        "the first process was killed; the spare is primary of term {term} and has {kept} of 10000 items"
    );
    assert_eq!(kept, 10_000);
    Ok(())
}
