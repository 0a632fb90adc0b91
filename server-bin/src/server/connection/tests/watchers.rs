//! `watch` over connections (rule G8).

use super::operators::{Client, ask, stat};
use super::*;

/// A client that watches, and what it was told since it was last asked.
fn watching(shared: &Shared, words: &str) -> Client {
    let mut client = Client::new(shared);
    assert_eq!(client.ask(shared, &format!("watch{words}\r\n")), "OK\r\n", "{words}");
    client
}

/// What the lines say behind time and number; those must be there.
fn told(shared: &Shared, client: &mut Client) -> Vec<String> {
    let text = client.ask(shared, "");
    let rest = |line: &str| {
        let (ts, rest) = line.strip_prefix("ts=")?.split_once(" gid=")?;
        let (seconds, micros) = ts.split_once('.')?;
        let (gid, rest) = rest.split_once(' ')?;
        let numbers = [seconds, micros, gid].map(|number| number.parse::<u64>().ok());
        (numbers.iter().all(Option::is_some) && micros.len() == 6).then(|| rest.to_owned())
    };
    text.split_terminator('\n').map(|line| rest(line).unwrap_or_else(|| line.to_owned())).collect()
}

#[test]
fn g8_fetchers_mutations_and_deletions_are_told_to_those_who_asked() {
    let shared = shared();
    let mut fetchers = watching(&shared, "");
    let mut changes = watching(&shared, " mutations deletions");
    let mut proxy = watching(&shared, " proxyreqs proxyevents proxyuser");
    ask(&shared, "set a:b 0 0 3\r\nxyz\r\nget a:b c\r\nadd a:b 0 0 1\r\nx\r\ncas a:b 0 0 1 99\r\nx\r\n");
    ask(
        &shared,
        "cas none 0 0 1 1\r\nx\r\nset n 0 0 2\r\n99\r\nincr n 1\r\ndecr n 1\r\nincr none 1\r\ndelete n\r\ndelete n\r\n",
    );
    ask(&shared, "set big 0 0 3000000\r\n");
    let class = shared.cache.details("a:b").unwrap().unwrap().class + 1;
    assert_eq!(
        told(&shared, &mut fetchers),
        [
            format!("type=item_get key=a%3Ab status=found clsid={class} cfd=0 size=3"),
            "type=item_get key=c status=not_found clsid=0 cfd=0 size=0".to_owned()
        ]
    );
    let expected = [
        stored(&shared, "a%3Ab", 3, "stored cmd=set ttl=0", 3),
        stored(&shared, "a%3Ab", 3, "not_stored cmd=add ttl=0", 1),
        stored(&shared, "a%3Ab", 3, "exists cmd=cas ttl=0", 1),
        stored(&shared, "none", 4, "not_found cmd=cas ttl=0", 1),
        stored(&shared, "n", 1, "stored cmd=set ttl=0", 2),
        stored(&shared, "n", 1, "stored cmd=incr", 3),
        stored(&shared, "n", 1, "stored cmd=decr", 2),
        format!("type=deleted key=n cmd=delete clsid={} cfd=0", class_of(&shared, 1, 2)),
        stored(&shared, "big", 3, "too_large cmd=set ttl=0", 0),
    ];
    assert_eq!(told(&shared, &mut changes), expected);
    assert_eq!(told(&shared, &mut proxy), [""; 0]);
}

fn class_of(shared: &Shared, key_bytes: usize, value_bytes: usize) -> usize {
    shared.cache.class_of(key_bytes, value_bytes, hotspare::Expiry::Never) + 1
}

/// The line of a store without an expiry.
fn stored(shared: &Shared, key: &str, key_bytes: usize, status: &str, size: usize) -> String {
    let class = class_of(shared, key_bytes, size);
    format!("type=item_store key={key} status={status} clsid={class} cfd=0 size={size}")
}

#[test]
fn g8_binary_commands_and_meta_ones_are_told_as_the_classic_ones() {
    let shared = shared();
    let mut all = watching(&shared, " fetchers mutations deletions");
    let mut binary = |opcode: u8, extras: &[u8], value: &[u8], cas: u64| {
        let body = (extras.len() + 1 + value.len()) as u32;
        let mut request = vec![0x80, opcode, 0, 1, extras.len() as u8, 0, 0, 0];
        request.extend(body.to_be_bytes());
        request.extend(7_u32.to_be_bytes());
        request.extend(cas.to_be_bytes());
        request.extend([extras, b"k", value].concat());
        run(&shared, &mut Connection::new(&shared.settings), &mut socket(&request, 1 << 20));
        told(&shared, &mut all)
    };
    // An expiry takes room.
    let expiring = |value_bytes| shared.cache.class_of(1, value_bytes, hotspare::Expiry::At(u64::MAX)) + 1;
    assert_eq!(expiring(1), expiring(2));
    let line = |rest: &str| vec![rest.replace('#', &format!("clsid={} cfd=0", expiring(1)))];
    let set = [0, 0, 0, 0, 0, 0, 0, 100];
    assert_eq!(
        binary(0x01, &set, b"1", 0),
        line("type=item_store key=k status=stored cmd=set ttl=100 # size=1")
    );
    assert_eq!(
        binary(0x02, &set, b"1", 0),
        line("type=item_store key=k status=not_stored cmd=add ttl=100 # size=1")
    );
    assert_eq!(
        binary(0x01, &set, b"1", 99),
        line("type=item_store key=k status=exists cmd=cas ttl=100 # size=1")
    );
    assert_eq!(binary(0x00, b"", b"", 0), line("type=item_get key=k status=found # size=1"));
    assert_eq!(binary(0x05, &[0; 20], b"", 0), line("type=item_store key=k status=stored cmd=incr # size=1"));
    assert_eq!(binary(0x0e, b"", b"2", 0), [stored(&shared, "k", 1, "stored cmd=append ttl=0", 1)]);
    assert_eq!(binary(0x04, b"", b"", 0), line("type=deleted key=k cmd=delete #"));
    assert_eq!(binary(0x00, b"", b"", 0), ["type=item_get key=k status=not_found clsid=0 cfd=0 size=0"]);
    ask(&shared, "ms k 1 T30\r\n1\r\nmg k\r\nma k\r\nmd k\r\n");
    let lines = told(&shared, &mut all);
    let expected = [
        "type=item_store key=k status=stored cmd=set ttl=30 # size=1",
        "type=item_get key=k status=found # size=1",
        "type=item_store key=k status=stored cmd=incr # size=1",
        "type=deleted key=k cmd=delete #",
    ];
    assert_eq!(lines, expected.map(|text| line(text).remove(0)));
}

#[test]
fn g8_evictions_are_told_while_somebody_watches_them() {
    let shared = shared();
    shared.cache.resize(8 << 20).unwrap();
    let fill = |from: usize| {
        for number in from..from + 200 {
            shared.cache.set(format!("k{number}"), vec![0; 100_000], hotspare::Expiry::Never).unwrap();
        }
        shared.cache.stats().evictions
    };
    let before = fill(0);
    assert!(before > 0);
    let mut evictions = watching(&shared, " evictions");
    let after = fill(1000);
    let lines = told(&shared, &mut evictions);
    assert_eq!(lines.len() as u64, after - before);
    let class = class_of(&shared, 2, 100_000);
    let rest = format!(" clsid={class} size=100000");
    let is_told = |line: &String| {
        // How long ago it was stored depends on how fast the machine is.
        let is_head = line.starts_with("type=eviction key=k") && line.contains(" fetch=no ttl=-1 la=");
        is_head && line.ends_with(&rest)
    };
    assert!(lines.iter().all(is_told), "{lines:?}");
    drop(evictions);
    fill(2000);
    assert_eq!(stat(&ask(&shared, "stats\r\n"), "log_watcher_sent"), (after - before).to_string());
}

#[test]
fn g8_a_slow_reader_loses_lines_and_learns_how_many() {
    let shared = shared();
    let mut slow = watching(&shared, " fetchers");
    let gets = format!("get{}\r\n", " 12345678".repeat(100));
    for _ in 0..100 {
        ask(&shared, &gets);
    }
    let lines = told(&shared, &mut slow);
    let (last, kept) = lines.split_last().unwrap();
    assert!(kept.len() > 1000, "{}", kept.len());
    assert_eq!(*last, format!("skipped={}", 10_000 - kept.len()));
    ask(&shared, "get a\r\n");
    assert_eq!(told(&shared, &mut slow), ["type=item_get key=a status=not_found clsid=0 cfd=0 size=0"]);
    let stats = ask(&shared, "stats\r\n");
    assert_eq!(stat(&stats, "log_watcher_skipped"), (10_000 - kept.len()).to_string());
}

#[test]
fn z9_watcher_logbuf_size_bounds_what_waits_for_a_watcher() {
    let mut shared = shared();
    shared.settings.watcher_queue_bytes_max = 1024;
    let mut slow = watching(&shared, " fetchers");
    ask(&shared, "get 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25\r\n");
    let text = slow.ask(&shared, "");
    let (kept, skipped) = text.rsplit_once("skipped=").unwrap();
    assert!((900..=1024).contains(&kept.len()), "{}", kept.len());
    assert_eq!(skipped.trim_end().parse(), Ok(25 - kept.lines().count()));
}

#[test]
fn g8_watch_is_refused_by_w_pipelined_and_in_other_words() {
    let mut shared = shared();
    let refused = "END\r\nERROR cannot pipeline other commands before watch\r\n";
    assert_eq!(ask(&shared, "get x\r\nwatch\r\n"), refused);
    for words in ["fetch", "fetchers nonsense", "Mutations"] {
        assert_eq!(ask(&shared, &format!("watch {words}\r\n")), "ERROR\r\n", "t1: whole words, {words}");
    }
    let many: Vec<Client> = (0..20).map(|_| watching(&shared, "")).collect();
    assert_eq!(ask(&shared, "watch\r\n"), "WATCHER_TOO_MANY log watcher limit reached\r\n");
    assert_eq!(stat(&ask(&shared, "stats\r\n"), "log_watchers"), "20");
    drop(many);
    assert_eq!(stat(&ask(&shared, "stats\r\n"), "log_watchers"), "0", "a client that goes watches no more");
    shared.settings.watch_enabled = false;
    assert_eq!(ask(&shared, "watch\r\n"), "CLIENT_ERROR watch commands not allowed\r\n");
}

#[test]
fn g8_a_watcher_sends_no_more_requests_and_is_closed_when_it_leaves() {
    let shared = shared();
    let mut watcher = watching(&shared, "");
    assert_eq!(watcher.ask(&shared, "get a\r\nquit\r\n"), "");
    let mut connection = Connection::new(&shared.settings);
    let mut leaving = FakeSocket { ends: true, ..socket(b"watch\r\n", 100) };
    assert_eq!(run(&shared, &mut connection, &mut leaving), Turn::Closed);
    assert_eq!(leaving.output, b"OK\r\n");
}
