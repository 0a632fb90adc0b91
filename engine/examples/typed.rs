//! A cache of structs, and what happens when the struct changes.
//!
//! `cargo run --release -p hotspare --example typed`

use std::error::Error;
use std::time::Duration;

use hotspare::{Cache, Config, Typed};
use serde::{Deserialize, Serialize};

const HOUR: Duration = Duration::from_secs(3600);

/// What the service cached yesterday.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u32,
}

/// What it caches since today: the same name in the cache, another version of the type.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct UserWithMail {
    name: String,
    mail: Option<String>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let cache = Cache::new(Config::new())?;

    // The three lines.
    let users: Typed<u64, User> = Typed::new(&cache, "user", 1)?;
    users.set(&7, &User { name: "Ada".to_owned(), age: 36 }, HOUR)?;
    let ada = users.get(&7)?;

    println!("version 1 reads {ada:?}");
    assert_eq!(ada.ok_or("it was just stored")?.name, "Ada");

    // The values carry no field names: the number tells yesterday's bytes from today's. What has another number is
    // no error, but a miss.
    let users_with_mail: Typed<u64, UserWithMail> = Typed::new(&cache, "user", 2)?;
    assert_eq!(users_with_mail.get(&7)?, None);
    println!("version 2 sees a miss; undecodable so far: {}", cache.stats().get_undecodable);
    assert_eq!(cache.stats().get_undecodable, 1);

    // A miss is loaded, and takes the old value's place.
    let ada = users_with_mail.get_or_load(&7, HOUR, || {
        let mail = Some("ada@example.org".to_owned());
        Ok::<_, std::io::Error>(UserWithMail { name: "Ada".to_owned(), mail })
    })?;
    println!("version 2 loads {ada:?}");
    assert_eq!(users_with_mail.get(&7)?, Some(ada));

    // While old and new processes share a cache, each loads what the other one stored: a miss, never a wrong value.
    assert_eq!(users.get(&7)?, None);

    // So do bytes that no version of the type has written.
    let key = cache.iter().next().ok_or("there is one item")??.0;
    cache.set(&key, b"\x02\x00 nonsense", HOUR)?;
    assert_eq!(users_with_mail.get(&7)?, None);
    println!("nonsense is a miss as well; undecodable: {}", cache.stats().get_undecodable);

    // Views of other names never meet, and one of them can be emptied at once.
    let pages: Typed<str, String> = Typed::new(&cache, "page", 1)?;
    pages.set("/", &"welcome".to_owned(), HOUR)?;
    users_with_mail.clear()?;
    assert_eq!(pages.get("/")?.as_deref(), Some("welcome"));
    Ok(())
}
