//! The `memcache` crate against the server: what an application uses, unchanged.
//!
//! Lives here: the client as the other tests use it, and its own round of commands.

use std::io::{self, Write};
use std::net::SocketAddr;

use memcache::{Client, MemcacheError, Stream, ToMemcacheValue};

/// A value with client flags of our own, which the crate's own types do not offer.
pub(crate) struct Flagged<'a> {
    pub(crate) value: &'a [u8],
    pub(crate) flags: u32,
}

impl ToMemcacheValue<Stream> for Flagged<'_> {
    fn get_flags(&self) -> u32 {
        self.flags
    }

    fn get_length(&self) -> usize {
        self.value.len()
    }

    fn write_to(&self, stream: &mut Stream) -> io::Result<()> {
        stream.write_all(self.value)
    }
}

/// A client with one connection.
pub(crate) fn connect(address: SocketAddr) -> Client {
    let url = format!("memcache://{address}?protocol=ascii&timeout=5&connect_timeout=5&tcp_nodelay=true");
    Client::with_pool_size(url, 1).unwrap_or_else(|error| panic!("{address}: {error}"))
}

/// Value and flags of `key`.
pub(crate) fn get(client: &Client, key: &str) -> Option<(Vec<u8>, u32)> {
    client.get::<(Vec<u8>, u32)>(key).unwrap_or_else(|error| panic!("get {key}: {error}"))
}

/// The CAS unique of `key`.
pub(crate) fn token(client: &Client, key: &str) -> u64 {
    let found = client.gets::<(Vec<u8>, u32, Option<u64>)>(&[key]).expect("an answer to gets");
    found[key].2.expect("a CAS unique")
}

#[test]
fn t4_a_stock_client_stores_reads_counts_and_deletes() -> Result<(), MemcacheError> {
    let mut server = crate::standalone(16);
    let client = connect(server.clients());
    client.set("a", Flagged { value: b"\0binary\r\n", flags: 77 }, 0)?;
    assert_eq!(get(&client, "a"), Some((b"\0binary\r\n".to_vec(), 77)));
    // The client takes NOT_STORED for success; what counts is that nothing was stored.
    client.add("a", "again", 0)?;
    assert_eq!(get(&client, "a"), Some((b"\0binary\r\n".to_vec(), 77)));
    client.replace("a", "b", 0)?;
    client.append("a", "c")?;
    client.prepend("a", "a")?;
    assert_eq!(client.get::<String>("a")?.as_deref(), Some("abc"));
    client.set("n", 41_u64, 0)?;
    assert_eq!(client.increment("n", 1)?, 42);
    assert_eq!(client.decrement("n", 100)?, 0);
    assert!(client.touch("n", 100)?);
    assert!(client.delete("n")?);
    assert!(!client.delete("n")?);
    let found = client.gets::<String>(&["a", "n", "z"])?;
    assert_eq!(found.len(), 1);
    Ok(())
}

#[test]
fn cas_succeeds_once_and_never_with_a_used_token() -> Result<(), MemcacheError> {
    let mut server = crate::standalone(16);
    let client = connect(server.clients());
    client.set("k", "1", 0)?;
    let used = token(&client, "k");
    assert!(client.cas("k", "2", 0, used)?);
    assert!(!client.cas("k", "3", 0, used)?);
    assert_eq!(client.get::<String>("k")?.as_deref(), Some("2"));
    Ok(())
}
