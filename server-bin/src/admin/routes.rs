//! What each path of the admin server answers.

use std::time::{Duration, Instant};

use hotspare::{AckMode, Cache, LinkState, PromoteError, Role, Status, Warning};
use serde_json::json;
use subtle::ConstantTimeEq;

use super::http::{Answer, Request};
use super::{Context, metrics};
use crate::args::{is_loopback, node_address};

/// How long writes may pause for a replica that is to take over.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(1);

/// How long the answer to a promotion waits for the other nodes to hear of it, so that it can say what they held (the node
/// serves by then), and that to another mode for what it changes.
const TOLD_WITHIN: Duration = Duration::from_millis(150);

/// How long the answer to `/follow` waits for this node to find a primary.
const FOUND_WITHIN: Duration = Duration::from_millis(300);

/// How long it waits for why the named node is none, where no primary was found.
const EXPLAINED_WITHIN: Duration = Duration::from_secs(1);

/// Answers one request.
pub(crate) fn answer(context: &Context, request: &Request) -> Answer {
    match &context.token {
        Some(token) => {
            let given = request.bearer.as_deref().unwrap_or_default();
            if !bool::from(given.ct_eq(token)) {
                let why = match request.bearer {
                    None => "this server wants a bearer token; give --admin-token-file",
                    Some(_) => {
                        "that bearer token is not this server's; give --admin-token-file with the file that it was started with"
                    }
                };
                return Answer::text("401 Unauthorized", why);
            }
        }
        // A page that came here by a name of its own knows no token, so with one, names are welcome.
        None if !request.host_is_plain() => {
            return Answer::text("403 Forbidden", "call this server by its address");
        }
        None => {}
    }
    let method = if request.method == "HEAD" { "GET" } else { &*request.method };
    match (method, &*request.path) {
        ("GET", "/livez") => Answer::text("200 OK", "alive"),
        ("GET", "/readyz") => readiness(&context.cache.status()),
        ("GET", "/promotable") => health(context.cache.status().promotable),
        ("GET", "/status") => json_answer(&status_json(&context.cache.status())),
        ("GET", "/metrics") => Answer {
            status: "200 OK",
            content_type: "text/plain; version=0.0.4",
            body: metrics::write(&context.cache, &(context.counters)()),
        },
        ("POST", "/promote" | "/follow" | "/forget" | "/ack" | "/handover")
            if request.origin || request.browser =>
        {
            Answer::text("403 Forbidden", "a page may not change this server")
        }
        ("POST", "/promote") => promote(context, request),
        ("POST", "/follow") => follow(context, request),
        ("POST", "/forget") => forget(context, request),
        ("POST", "/ack") => set_ack_mode(context, request),
        ("POST", "/handover") => hand_over(context),
        (_, path) => match PATHS.iter().find(|(_, known, _)| known.split('?').next() == Some(path)) {
            Some((method, known, _)) => {
                Answer::text("405 Method Not Allowed", format!("say {method} {known}"))
            }
            None => Answer::text("404 Not Found", format!("no such path; there are:\n{}", all_paths())),
        },
    }
}

/// Each path, how it is asked, and what it is for; `server-bin/docs/admin.md` says more.
const PATHS: [(&str, &str, &str); 10] = [
    ("GET", "/livez", "200 while the process answers"),
    ("GET", "/readyz", "200 if the node may take traffic, else 503 and why"),
    ("GET", "/promotable", "200 if a fail-over manager may promote the node, else 503 and why"),
    ("GET", "/status", "all that the node says of itself, as JSON"),
    ("GET", "/metrics", "for Prometheus"),
    ("POST", "/promote?force=1", "make the node the primary; without force only if it may be"),
    (
        "POST",
        "/follow?address=HOST:PORT",
        "follow the primary that listens for replication there; a primary only with &force=1",
    ),
    ("POST", "/handover", "let a level replica take over"),
    ("POST", "/forget?address=HOST:PORT", "forget a peer that is gone for good"),
    ("POST", "/ack?mode=MODE", "async, semi-sync:N or strict:N, until the next start"),
];

fn all_paths() -> String {
    let line = |(method, path, what): &(&str, &str, &str)| format!("{method:<5}{path:<27}{what}");
    PATHS.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn health(state: Result<(), &'static str>) -> Answer {
    match state {
        Ok(()) => Answer::text("200 OK", "yes"),
        Err(why) => Answer::text("503 Service Unavailable", why),
    }
}

/// A primary that refuses writes stays ready: it answers reads, and no other node takes writes before it is promoted.
fn readiness(status: &Status) -> Answer {
    let refuses =
        |warning: &&Warning| matches!(warning, Warning::WritesRefused { .. } | Warning::OverBudget { .. });
    match status.warnings.iter().find(refuses) {
        _ if !status.ready => health(Err("takes no traffic")),
        Some(warning) => Answer::text("200 OK", format!("yes, but {warning}")),
        None => health(Ok(())),
    }
}

fn json_answer(value: &serde_json::Value) -> Answer {
    let body = format!("{value:#}\n");
    Answer { status: "200 OK", content_type: "application/json", body }
}

fn promote(context: &Context, request: &Request) -> Answer {
    let force = match request.field("force").as_deref() {
        Some("1") => true,
        Some("0") => false,
        None if request.query.is_empty() => false,
        _ => return Answer::text("400 Bad Request", "/promote takes force=1 and nothing else"),
    };
    match context.cache.promote(force) {
        Ok(term) => {
            // The other nodes hear of it.
            let warnings =
                lines(&settled(&context.cache, |warning| matches!(warning, Warning::Untold { .. })));
            json_answer(&json!({ "role": "primary", "term": term, "warnings": warnings }))
        }
        Err(why) => Answer::text("409 Conflict", why.to_string()),
    }
}

/// All that an operator should look at, in words.
fn lines(status: &Status) -> Vec<String> {
    status.warnings.iter().map(ToString::to_string).collect()
}

/// The status once this node has found a primary, as far as that is soon; if not, why it is not attached to the named one.
fn found(cache: &Cache, address: &str) -> (Status, Option<String>) {
    let begun = Instant::now();
    let mut why = None;
    loop {
        let status = cache.status();
        if status.link != LinkState::Connecting {
            return (status, None);
        }
        // Other nodes are asked after it, and what they say comes in its place.
        let is_its = |error: &&String| error.strip_prefix(address).is_some_and(|rest| rest.starts_with(": "));
        why = status.last_error.as_ref().filter(is_its).cloned().or(why);
        let waited = begun.elapsed();
        if waited >= EXPLAINED_WITHIN || waited >= FOUND_WITHIN && why.is_some() {
            return (status, why.or_else(|| Some(unexplained(address))));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What is said of a node that has neither refused nor answered yet.
fn unexplained(address: &str) -> String {
    format!(
        "{address}: nothing was heard from there within a second; hotspare status tells as last_error what becomes of it"
    )
}

/// The status once nothing warns of this any more, as far as that is soon.
fn settled(cache: &Cache, passes: fn(&Warning) -> bool) -> Status {
    let end = Instant::now() + TOLD_WITHIN;
    loop {
        let status = cache.status();
        if !status.warnings.iter().any(passes) || Instant::now() >= end {
            return status;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn follow(context: &Context, request: &Request) -> Answer {
    let Some(address) = request.field("address") else {
        return Answer::text("400 Bad Request", "give address=HOST:PORT");
    };
    let force = match request.field("force").as_deref() {
        None | Some("0") => false,
        Some("1") => true,
        Some(_) => return Answer::text("400 Bad Request", "/follow takes address=HOST:PORT and force=1"),
    };
    // A node that was told nonsense would stop serving and dial it for ever.
    if let Err(why) = node_address(&address) {
        return Answer::text("400 Bad Request", why);
    }
    if context.loopback_only && !is_loopback(&address) {
        return Answer::text(
            "409 Conflict",
            "this node has neither --replication-secret-file nor --replication-tls-cert, so it follows loopback addresses only",
        );
    }
    if context.cache.status().replicas.iter().any(|replica| replica.address == address) {
        return Answer::text(
            "409 Conflict",
            format!("{address} follows this node; promote that one, and this one follows it by itself"),
        );
    }
    match context.cache.follow(&address, force) {
        Ok(()) => {
            let (status, why) = found(&context.cache, &address);
            let warnings: Vec<String> = lines(&status).into_iter().chain(why).collect();
            json_answer(&json!({
                "follows": address,
                "primary": status.primary,
                "link": status.link.as_str(),
                "warnings": warnings,
            }))
        }
        Err(why @ PromoteError::BadAddress) => Answer::text("400 Bad Request", why.to_string()),
        Err(why) => Answer::text("409 Conflict", why.to_string()),
    }
}

fn hand_over(context: &Context) -> Answer {
    match context.cache.hand_over(HAND_OVER_WITHIN) {
        Ok(pause) => {
            let primary = context.cache.status().primary;
            json_answer(&json!({ "primary": primary, "pause_ms": pause.as_micros() as f64 / 1000.0 }))
        }
        Err(why) => Answer::text("409 Conflict", why.to_string()),
    }
}

fn forget(context: &Context, request: &Request) -> Answer {
    let Some(address) = request.field("address") else {
        return Answer::text("400 Bad Request", "give address=HOST:PORT");
    };
    match context.cache.forget_peer(&address) {
        Ok(()) => json_answer(&json!({ "forgotten": address, "warnings": lines(&context.cache.status()) })),
        Err(why) => Answer::text("409 Conflict", why.to_string()),
    }
}

fn set_ack_mode(context: &Context, request: &Request) -> Answer {
    let mode = request.field("mode").unwrap_or_default();
    let mode: AckMode = match mode.parse() {
        Ok(mode) => mode,
        Err(why) => return Answer::text("400 Bad Request", format!("mode={mode}: {why}")),
    };
    match context.cache.set_ack_mode(mode) {
        Ok(()) => {
            // Who is attached counts from now on.
            let status = settled(&context.cache, |warning| matches!(warning, Warning::WritesRefused { .. }));
            let fenced = (status.role == Role::Fenced).then(|| {
                format!(
                    "this node is fenced and takes no writes: {mode} is what it goes by once it reigns, and is forgotten at its \
                     next start; set it at the primary"
                )
            });
            let warnings: Vec<String> = fenced.into_iter().chain(lines(&status)).collect();
            json_answer(&json!({ "ack": mode.to_string(), "warnings": warnings }))
        }
        Err(why) => Answer::text("409 Conflict", why.to_string()),
    }
}

/// Everything that a node says of itself.
fn status_json(status: &Status) -> serde_json::Value {
    let replicas: Vec<serde_json::Value> = status
        .replicas
        .iter()
        .map(|replica| {
            json!({
                "node": format!("{:032x}", replica.node),
                "address": replica.address,
                "state": replica.state.as_str(),
                "applied_seq": replica.applied_seq,
                "lag_seqs": replica.lag_seqs,
                "lag_bytes": replica.lag_bytes,
                "lag_ms": replica.lag_ms,
                "ack": replica.ack_mode.map(|mode| mode.to_string()),
                "counts": replica.counts,
            })
        })
        .collect();
    // In the order in which one asks.
    json!({
        "role": status.role.as_str(),
        "ready": status.ready,
        "promotable": status.promotable.is_ok(),
        "promotable_reason": status.promotable.err(),
        "warnings": lines(status),
        "last_error": status.last_error,
        "primary": status.primary,
        "link": status.link.as_str(),
        "staleness_ms": status.staleness_ms,
        "depth": status.depth,
        "ack": status.ack_mode.to_string(),
        "primary_ack": status.primary_ack_mode.map(|mode| mode.to_string()),
        "level_replicas": status.level_replicas,
        "within_budget": status.within_budget,
        "replicas": replicas,
        "lease": status.lease.state.as_str(),
        "lease_remaining_ms": status.lease.remaining_ms,
        "lease_misses": status.lease.misses,
        "quarantined": status.quarantined,
        "copy_failures": status.copy_failures,
        "copy_pause_ms": status.copy_pause_ms,
        "term": status.term,
        "seq": status.seq,
        "group": status.group,
        "node": format!("{:032x}", status.node),
        "slot": status.slot,
        "log_bytes": status.log_bytes,
        "log_bytes_max": status.log_bytes_max,
        "installs": status.installs,
        "catch_ups": status.catch_ups,
        "roll_backs": status.roll_backs,
        "rolled_back_keys": status.rolled_back_keys,
        "log_waits": status.log_waits,
        "oversized_records": status.oversized_records,
        "loads_lent": status.loads_lent,
        "loads_taken": status.loads_taken,
        "loads_refused": status.loads_refused,
        "rejects": status.rejects,
    })
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use hotspare::transport::MemoryNetwork;
    use hotspare::{Cache, Config, Expiry, ReplicationConfig, Replicator};

    fn context(token: Option<&str>) -> Context {
        let cache =
            Cache::new(Config::new().replication(ReplicationConfig::replica_of("127.0.0.1:1"))).unwrap();
        let token = token.map(|token| token.as_bytes().to_vec());
        Context { cache, token, loopback_only: true, counters: Box::new(Default::default) }
    }

    fn request(method: &str, path: &str) -> Request {
        Request { method: method.to_owned(), path: path.to_owned(), ..Request::default() }
    }

    fn code(answer: &Answer) -> u16 {
        answer.status[..3].parse().unwrap()
    }

    #[test]
    fn an_empty_replica_is_alive_and_neither_ready_nor_promotable_until_it_is_promoted() {
        let context = context(None);
        let ask = |path| code(&answer(&context, &request("GET", path)));
        assert_eq!((ask("/livez"), ask("/readyz"), ask("/promotable")), (200, 503, 503));
        assert_eq!(code(&answer(&context, &request("POST", "/promote"))), 200);
        assert_eq!((ask("/readyz"), ask("/promotable"), ask("/nothing")), (200, 200, 404));
        let metrics = answer(&context, &request("GET", "/metrics")).body;
        assert!(metrics.contains("hotspare_is_primary 1\n") && metrics.contains("hotspare_quarantined 0\n"));
        assert!(metrics.lines().filter(|line| !line.starts_with('#')).count() >= 10);
    }

    #[test]
    fn a_primary_that_refuses_writes_is_ready_and_says_why_it_refuses_them() {
        let cache =
            Cache::new(Config::new().replication(ReplicationConfig::primary().ack(AckMode::of(1)))).unwrap();
        let context =
            Context { cache, token: None, loopback_only: true, counters: Box::new(Default::default) };
        let ready = || answer(&context, &request("GET", "/readyz"));
        let words = "yes, but writes are refused: the ack mode semi-sync:1 needs 1 level replica";
        assert!(code(&ready()) == 200 && ready().body.starts_with(words), "{:?}", ready());
        context.cache.set_ack_mode(AckMode::Async).unwrap();
        assert_eq!((code(&ready()), ready().body.trim_end()), (200, "yes"));
        // To be no primary comes first.
        context.cache.set_ack_mode(AckMode::of(1)).unwrap();
        context.cache.follow("127.0.0.1:1", true).unwrap();
        assert_eq!((code(&ready()), ready().body.trim_end()), (503, "takes no traffic"));
    }

    /// What operators read.
    const DOCS: &str = include_str!("../../docs/admin.md");

    #[test]
    fn each_path_is_answered_and_is_named_by_the_docs_and_where_there_is_none() {
        let context = context(None);
        let nowhere = answer(&context, &request("GET", "/nothing")).body;
        for (method, path, what) in PATHS {
            assert!(nowhere.contains(&format!("{method:<5}{path}")) && nowhere.contains(what), "{nowhere}");
            assert!(DOCS.contains(&format!("`{method} {path}`")), "docs/admin.md lacks {method} {path}");
            let bare = path.split('?').next().unwrap();
            let answered = answer(&context, &request(method, bare));
            assert!(!matches!(code(&answered), 404 | 405), "{path}: {answered:?}");
            let wrong = if method == "GET" { "POST" } else { "GET" };
            let refused = answer(&context, &request(wrong, bare));
            assert_eq!(code(&refused), 405, "{path}");
            assert!(refused.body.contains(&format!("{method} {path}")), "{refused:?}");
        }
        let documented = DOCS.matches("`GET /").count() + DOCS.matches("`POST /").count();
        assert_eq!(documented, PATHS.len(), "docs/admin.md names a path that there is not");
    }

    /// The names of all fields, those of a replica with `replicas.` before them.
    fn field_names(status: &serde_json::Value, before: &str) -> Vec<String> {
        let fields = status.as_object().expect("fields").iter();
        let names = fields.flat_map(|(name, value)| {
            let inner = value.as_array().and_then(|list| list.first()).filter(|first| first.is_object());
            let inner = inner.map_or(Vec::new(), |first| field_names(first, &format!("{name}.")));
            [vec![format!("{before}{name}")], inner].concat()
        });
        names.collect()
    }

    #[test]
    fn each_field_of_the_status_is_explained_and_no_other() {
        let [primary, _spare] = pair(AckMode::Async, AckMode::Async);
        let status = status_json(&primary.status());
        assert_eq!(status["replicas"].as_array().map(Vec::len), Some(1), "{status}");
        let mut names = field_names(&status, "");
        let mut explained: Vec<String> = DOCS
            .lines()
            .filter_map(|line| Some(line.strip_prefix("- `")?.split_once("`:")?.0.to_owned()))
            .collect();
        names.sort();
        explained.sort();
        assert_eq!(explained, names, "docs/admin.md has a line `- \\`name\\`:` for each field");
    }

    /// A primary and its replica, streaming.
    fn pair(ours: AckMode, theirs: AckMode) -> [Cache; 2] {
        let network = MemoryNetwork::immediate();
        let cache = |config| Cache::new(Config::new().replication(config)).unwrap();
        let primary = cache(ReplicationConfig::primary().ack(ours));
        let spare = cache(ReplicationConfig::replica_of("a").ack(theirs));
        let mut first = Replicator::new(&primary, network.transport("a")).unwrap();
        let mut second = Replicator::new(&spare, network.transport("b")).unwrap();
        let mut cx = std::task::Context::from_waker(Waker::noop());
        for _ in 0..50 {
            first.poll(&mut cx);
            second.poll(&mut cx);
        }
        [primary, spare]
    }

    #[test]
    fn nodes_of_unlike_ack_modes_warn_on_both_sides() {
        let strict = AckMode::Strict { replicas: 1 };
        for (ours, theirs) in [(strict, AckMode::Async), (AckMode::Async, strict)] {
            let statuses = pair(ours, theirs).map(|node| status_json(&node.status()));
            for (status, told) in statuses.iter().zip([(ours, theirs), (theirs, ours)]) {
                let warning = status["warnings"].as_array().and_then(|all| all.last()).expect("a warning");
                let words = format!("the ack mode here is {}, and {} at", told.0, told.1);
                assert!(warning.as_str().unwrap().starts_with(&words), "{warning}");
            }
            assert_eq!(statuses[0]["replicas"][0]["ack"], theirs.to_string());
            assert_eq!(statuses[1]["primary_ack"], ours.to_string());
        }
        for node in pair(strict, strict) {
            assert_eq!(node.status().warnings, []);
        }
    }

    #[test]
    fn pages_strangers_and_wrong_methods_are_refused() {
        let guarded = context(Some("secret"));
        assert_eq!(code(&answer(&guarded, &request("GET", "/status"))), 401);
        let bearer = Some(b"secret".to_vec());
        assert_eq!(code(&answer(&guarded, &Request { bearer, ..request("GET", "/status") })), 200);
        let open = context(None);
        assert_eq!(code(&answer(&open, &Request { origin: true, ..request("POST", "/promote") })), 403);
        let host = Some("evil.example".to_owned());
        assert_eq!(code(&answer(&open, &Request { host, ..request("GET", "/status") })), 403);
        assert_eq!(code(&answer(&open, &request("GET", "/promote"))), 405);
        assert_eq!(code(&answer(&open, &request("POST", "/follow"))), 400);
        let browser = Request { browser: true, ..request("POST", "/promote") };
        assert_eq!(code(&answer(&open, &browser)), 403);
        assert_eq!(code(&answer(&open, &Request { browser: true, ..request("GET", "/livez") })), 200);
    }

    #[test]
    fn who_bears_the_token_may_call_the_node_by_a_name() {
        let guarded = context(Some("secret"));
        let host = Some("cache-1.example:7101".to_owned());
        let named = Request { host, ..request("GET", "/metrics") };
        assert_eq!(code(&answer(&guarded, &named)), 401);
        assert_eq!(code(&answer(&guarded, &Request { bearer: Some(b"secret".to_vec()), ..named })), 200);
    }

    #[test]
    fn nonsense_changes_nothing() {
        let cache = Cache::new(Config::new().replication(ReplicationConfig::primary())).unwrap();
        let context =
            Context { cache, token: None, loopback_only: true, counters: Box::new(Default::default) };
        let before = context.cache.status();
        for (path, query) in [
            ("/follow", "address=7001"),
            ("/follow", "address=%3a7001"),
            ("/follow", "address=a%20b:1"),
            ("/follow", "address=127.0.0.1:0"),
            ("/follow", "address=127.0.0.1:7001&force=yes"),
            ("/promote", "force=yes"),
            ("/promote", "farce=1"),
            ("/promote", "force=%zz"),
            ("/ack", "mode=semi-sync:0"),
            ("/ack", "mode=strict:0"),
            ("/ack", ""),
        ] {
            let asked = Request { query: query.to_owned(), ..request("POST", path) };
            assert_eq!(code(&answer(&context, &asked)), 400, "{path}?{query}");
        }
        let beyond = Request { query: "address=10.0.0.1:7001".to_owned(), ..request("POST", "/follow") };
        assert_eq!(code(&answer(&context, &beyond)), 409, "it could never dial that");
        assert_eq!(context.cache.status(), before);
        context.cache.set("k", "v", Expiry::Never).unwrap();
        let asked = Request { query: "address=127.0.0.1:7001".to_owned(), ..request("POST", "/follow") };
        let refused = answer(&context, &asked);
        assert!(code(&refused) == 409 && refused.body.contains("hand over"), "{}", refused.body);
        assert_eq!(context.cache.status().role, hotspare::Role::Primary);
        let query = "address=127.0.0.1:7001&force=1".to_owned();
        assert_eq!(code(&answer(&context, &Request { query, ..asked })), 200);
        assert_ne!(context.cache.status().role, hotspare::Role::Primary);
    }

    #[test]
    fn the_ack_mode_is_set_while_the_node_runs() {
        let cache = Cache::new(Config::new().replication(ReplicationConfig::primary())).unwrap();
        let context =
            Context { cache, token: None, loopback_only: true, counters: Box::new(Default::default) };
        let asked = Request { query: "mode=semi-sync:2".to_owned(), ..request("POST", "/ack") };
        let answered = answer(&context, &asked);
        assert_eq!(code(&answered), 200);
        assert!(answered.body.contains("semi-sync:2 needs 2 level replicas"), "{answered:?}");
        assert_eq!(context.cache.ack_mode(), AckMode::SemiSync { replicas: 2 });
        assert_eq!(code(&answer(&context, &Request { origin: true, ..asked })), 403);
        let status = answer(&context, &request("GET", "/status")).body;
        assert!(
            status.contains("\"ack\": \"semi-sync:2\"") && status.contains("\"level_replicas\": 0"),
            "{status}"
        );
    }

    #[test]
    fn who_sets_the_ack_mode_of_a_fenced_node_is_told_what_that_is_worth() {
        let cache = Cache::new(Config::new().replication(ReplicationConfig::primary())).unwrap();
        cache.follow("127.0.0.1:1", true).unwrap();
        let context =
            Context { cache, token: None, loopback_only: true, counters: Box::new(Default::default) };
        let asked = Request { query: "mode=async".to_owned(), ..request("POST", "/ack") };
        let answered = answer(&context, &asked);
        assert!(answered.body.contains("this node is fenced and takes no writes: async"), "{answered:?}");
    }

    #[test]
    fn a_node_that_is_told_to_follow_nobody_says_so_in_its_answer_and_its_status() {
        let context = context(None);
        let query = "address=127.0.0.1:2".to_owned();
        let answered = answer(&context, &Request { query, ..request("POST", "/follow") });
        assert_eq!(code(&answered), 200);
        let words = "told to follow 127.0.0.1:2, where no node has answered yet";
        assert!(
            answered.body.contains(words) && answered.body.contains("\"link\": \"connecting\""),
            "{answered:?}"
        );
        assert!(answer(&context, &request("GET", "/status")).body.contains(words));
    }

    #[test]
    fn a_status_tells_first_what_one_asks_first() {
        let [_primary, spare] = pair(AckMode::Async, AckMode::Async);
        let text = format!("{:#}", status_json(&spare.status()));
        let places: Vec<_> =
            ["role", "promotable", "warnings", "last_error", "primary", "ack", "term", "log_bytes"]
                .map(|name| text.find(&format!("\"{name}\":")).expect("a field"))
                .into();
        assert!(places.is_sorted(), "{text}");
        assert!(spare.status().staleness_ms.is_some_and(|ms| ms < 1_000), "{text}");
        assert!(text.contains("\"loads_lent\": 0"), "{text}");
    }

    #[test]
    fn a_standalone_node_refuses_a_change_of_role() {
        let cache = Cache::new(Config::new()).unwrap();
        let context =
            Context { cache, token: None, loopback_only: true, counters: Box::new(Default::default) };
        let refused = answer(&context, &request("POST", "/promote"));
        assert_eq!(code(&refused), 409);
        assert!(refused.body.contains("without replication"));
    }
}
