//! Claims about typed caches, one each.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::*;
use crate::{Config, Expiry, LoadError};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: u32,
}

type Failure = std::io::Error;

const MINUTE: Duration = Duration::from_secs(60);

fn cache() -> Cache {
    Cache::new(Config::new().memory_bytes_max(4 << 20)).unwrap()
}

fn ada() -> User {
    User { name: "Ada".to_owned(), age: 36 }
}

fn views() -> (Cache, Typed<u64, User>, Typed<u64, User>) {
    let cache = cache();
    (cache.clone(), Typed::new(&cache, "user", 1).unwrap(), Typed::new(&cache, "user", 2).unwrap())
}

#[test]
fn value_reads_back_and_names_keep_views_apart() {
    let (cache, users, _) = views();
    let others: Typed<u64, User> = Typed::new(&cache, "use", 1).unwrap();
    users.set(&7, &ada(), Expiry::Never).unwrap();
    assert_eq!(users.get(&7).unwrap(), Some(ada()));
    assert_eq!((users.get(&8).unwrap(), others.get(&7).unwrap()), (None, None));
    assert!(users.delete(&7).unwrap() && !users.delete(&7).unwrap());
}

#[test]
fn many_values_are_read_in_the_order_of_their_keys() {
    let (_, users, newer) = views();
    users.set(&1, &ada(), Expiry::Never).unwrap();
    newer.set(&2, &ada(), Expiry::Never).unwrap();
    assert_eq!(users.get_many(&[3, 1, 2]).unwrap(), [None, Some(ada()), None]);
    assert_eq!(users.add(&1, &ada(), Expiry::Never).unwrap(), None);
    assert!(users.add(&3, &ada(), Expiry::Never).unwrap().is_some());
    assert!(users.touch(&3, MINUTE).unwrap() && !users.touch(&4, MINUTE).unwrap());
}

#[test]
fn keys_of_any_type_are_found_again() {
    let cache = cache();
    let pairs: Typed<(u32, String), u8> = Typed::new(&cache, "pair", 1).unwrap();
    let texts: Typed<str, u8> = Typed::new(&cache, "text", 1).unwrap();
    pairs.set(&(1, "x".to_owned()), &9, Expiry::Never).unwrap();
    texts.set("x", &8, Expiry::Never).unwrap();
    assert_eq!(pairs.get(&(1, "x".to_owned())).unwrap(), Some(9));
    assert_eq!(texts.get("x").unwrap(), Some(8));
}

#[test]
fn what_does_not_decode_is_a_miss_and_is_counted() {
    let (cache, users, newer) = views();
    users.set(&7, &ada(), Expiry::Never).unwrap();
    assert_eq!(newer.get(&7).unwrap(), None, "another version of the type");
    let key = users.key(&9).unwrap();
    for bytes in [&b""[..], b"\x01", b"\x01\x00", b"\x01\x00\xff\xff\xff", &[1, 0, 0, 0, 0]] {
        cache.set(&key, bytes, Expiry::Never).unwrap();
        assert_eq!(users.get(&9).unwrap(), None, "{bytes:?}");
    }
    let stats = cache.stats();
    assert_eq!((stats.get_undecodable, stats.get_hits, stats.get_misses), (6, 0, 6));
}

#[test]
fn load_replaces_what_does_not_decode() {
    let (cache, users, newer) = views();
    users.set(&7, &ada(), Expiry::Never).unwrap();
    let grace = User { name: "Grace".to_owned(), age: 85 };
    let loaded = newer.get_or_load(&7, MINUTE, || Ok::<_, Failure>(grace.clone())).unwrap();
    assert_eq!(loaded, grace);
    assert_eq!(newer.get(&7).unwrap(), Some(grace.clone()));
    assert_eq!(users.get_or_load(&7, MINUTE, || Ok::<_, Failure>(ada())).unwrap(), ada());
    let unused = || Err::<User, _>(Failure::other("it must not be asked"));
    assert_eq!(users.get_or_load(&7, MINUTE, unused).unwrap(), ada());
    assert_eq!(cache.stats().get_undecodable, 2);
}

#[test]
fn loaders_error_comes_back_as_it_is() {
    let (_, users, _) = views();
    let failed = users.get_or_load(&1, MINUTE, || Err::<User, _>(Failure::other("down")));
    let Err(LoadError::Loader(error)) = failed else { panic!("it fails") };
    assert_eq!(error.to_string(), "down");
}

#[test]
fn clear_concerns_one_view_only() {
    let (cache, users, _) = views();
    let pages: Typed<u64, String> = Typed::new(&cache, "page", 1).unwrap();
    users.set(&7, &ada(), Expiry::Never).unwrap();
    pages.set(&7, &"home".to_owned(), Expiry::Never).unwrap();
    users.clear().unwrap();
    assert_eq!(users.get(&7).unwrap(), None);
    assert_eq!(pages.get(&7).unwrap().unwrap(), "home");
}

#[test]
fn wrong_names_and_values_that_do_not_encode_are_refused() {
    #[derive(Debug, Deserialize)]
    struct Unencodable;
    impl Serialize for Unencodable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it has no bytes"))
        }
    }
    let cache = cache();
    for name in ["", "a\0b", &"x".repeat(65)] {
        assert_eq!(Typed::<u8, u8>::new(&cache, name, 1).unwrap_err(), TypedError::Name);
    }
    let view: Typed<u8, Unencodable> = Typed::new(&cache, "x", 1).unwrap();
    assert!(matches!(view.set(&1, &Unencodable, Expiry::Never), Err(TypedError::Encode(_))));
    let loaded = view.get_or_load(&1, MINUTE, || Ok::<_, Failure>(Unencodable));
    assert!(matches!(loaded, Err(LoadError::Encode(_))));
}

#[test]
fn failed_refresh_of_a_value_that_does_not_decode_is_the_loaders_error() {
    let clock = std::sync::Arc::new(crate::ManualClock::new(1_000_000));
    let cache = Cache::new(Config::new().memory_bytes_max(4 << 20).clock(clock.clone())).unwrap();
    let old: Typed<u64, User> = Typed::new(&cache, "user", 1).unwrap();
    let new: Typed<u64, User> = Typed::new(&cache, "user", 2).unwrap();
    let policy = LoadPolicy::fresh_for(MINUTE).stale_for(MINUTE);
    for is_async in [false, true] {
        old.get_or_load(&7, policy, || Ok::<_, Failure>(ada())).unwrap();
        clock.advance_ms(90_000);
        let failing = || Err(Failure::other("no database"));
        let failed = match is_async {
            false => new.get_or_load(&7, policy, failing),
            true => {
                let mut load = std::pin::pin!(new.get_or_load_async(&7, policy, async { failing() }));
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                match load.as_mut().poll(&mut context) {
                    std::task::Poll::Ready(failed) => failed,
                    std::task::Poll::Pending => panic!("nothing to wait for"),
                }
            }
        };
        assert!(matches!(failed, Err(LoadError::Loader(_))), "{failed:?}");
    }
}
