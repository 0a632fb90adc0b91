//! What the command line means, and what it refuses.

use proptest::prelude::*;
use std::io::Write;

use super::*;

fn read(line: &str) -> Result<Action, Refusal> {
    parse(std::iter::once("hotspare").chain(line.split_whitespace()).map(OsString::from))
}

fn served(line: &str) -> Plan {
    match read(line) {
        Ok(Action::Serve(plan)) => *plan,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_defaults_are_memcacheds_but_for_the_address() {
    let plan = served("");
    assert_eq!(plan.settings.addresses, ["127.0.0.1:11211".parse().unwrap()]);
    assert_eq!(plan.settings.memory_bytes_max, 64 << 20);
    assert_eq!((plan.settings.threads, plan.settings.connections_max), (4, 1024));
    assert!(plan.settings.evict && !plan.replicates && plan.admin.is_none());
}

#[test]
fn the_memory_may_have_a_letter_and_what_is_no_number_is_refused_with_what_to_give() {
    assert_eq!(served("-m 64m").settings.memory_bytes_max, 64 << 20);
    assert_eq!(served("-m 2g").settings.memory_bytes_max, 2 << 30);
    for (flags, words) in [
        (&["-m", "64k"][..], "'--memory-limit <MB>': give a number of megabytes, such as 64, or 64m or 2g"),
        (&["-m", ""], "'--memory-limit <MB>': give a number of megabytes"),
        (&["-m", "-1"], "'--memory-limit <MB>': give a number of megabytes"),
        (&["-m", "99999999g"], "give 1 to "),
        (&["-b", "0"], "'--listen-backlog <N>': give 1 to 2147483647"),
        (&["-b", "1k"], "'--listen-backlog <N>': give a whole number"),
        (&["-c", ""], "'--conn-limit <N>': give a whole number"),
        (&["-t", "4x"], "'--threads <N>': give a whole number"),
        (&["-c", "99999999999999999999"], "'--conn-limit <N>': that is too large"),
        (&["-t", "257"], "'--threads <N>': give 1 to 256"),
    ] {
        let said = match parse(std::iter::once("hotspare").chain(flags.iter().copied()).map(OsString::from)) {
            Err(Refusal::Clap(error)) => in_one_line(&error),
            Err(Refusal::Message(text)) => text,
            other => panic!("{flags:?}: {other:?}"),
        };
        assert!(said.contains(words), "{flags:?}: {said}");
    }
}

#[test]
fn memcacheds_habits_are_read() {
    let plan =
        served("-m128 -vvA -I 2m -p 0 -l 127.0.0.1,[::1]:5 -l 0.0.0.0 -U 0 -o modern,idle_timeout=5 -t 2 -M");
    assert_eq!(plan.settings.memory_bytes_max, 128 << 20);
    assert_eq!(plan.settings.item_bytes_max, 2 << 20);
    assert_eq!((plan.settings.verbosity, plan.settings.shutdown_command), (2, true));
    let addresses: Vec<String> = plan.settings.addresses.iter().map(|address| address.to_string()).collect();
    assert_eq!(addresses, ["127.0.0.1:0", "[::1]:5", "0.0.0.0:0"]);
    assert_eq!((plan.settings.idle_timeout_ms, plan.settings.evict), (5000, false));
    assert_eq!(served("-m 1").settings.item_bytes_max, 512 << 10);
    assert_eq!(served("-m 64 -m 3").settings.memory_bytes_max, 3 << 20, "the last one counts");
    assert_eq!(served("-p -1").settings.addresses, ["127.0.0.1:0".parse().unwrap()]);
    let plan = served("-dvP /x/pid -m64 -p11212 -unobody -rk -f 1.25 -n 48 -R 20 -L -c512");
    assert!(plan.daemon.starts_second && plan.daemon.core_files && plan.daemon.lock_memory);
    assert_eq!(plan.daemon.pid_file, Some(PathBuf::from("/x/pid")));
    assert_eq!(served("-e /x/memory").daemon.memory_file, Some(PathBuf::from("/x/memory")));
    assert_eq!(served("--memory-file=/x/memory").daemon.memory_file, Some(PathBuf::from("/x/memory")));
    assert_eq!((plan.daemon.user.as_deref(), plan.settings.verbosity), (Some("nobody"), 1));
    assert_eq!(plan.settings.addresses, ["127.0.0.1:11212".parse().unwrap()]);
    assert_eq!((plan.settings.memory_bytes_max, plan.settings.connections_max), (64 << 20, 512));
    assert!(!served("--in-background -d").daemon.starts_second);
    let long = "--port=5 --memory-limit=8 --conn-limit=9 --threads=2 --disable-evictions --verbose --udp-port=0 \
                --enable-shutdown --extended=modern --listen=127.0.0.2 --max-item-size=2k";
    assert_eq!(served(long).settings.addresses, ["127.0.0.2:5".parse().unwrap()]);
    served("-o no_slab_automove,no_inline_ascii_resp,no_hashexpand,hashpower=20");
}

#[test]
fn l8_z9_what_has_no_effect_is_told_in_the_units_of_stats_settings() {
    let words = "-f 1.5 -n 96 -R 200 -N 2 -L -b 100000 -e /x/memory -l 127.0.0.1:7 -l 127.0.0.2 -o \
                 hashpower=20,hash_algorithm=jenkins,slab_automove,slab_automove_ratio=0.5,slab_automove_window=60,\
                 slab_chunk_max=16,hot_lru_pct=30,hot_max_factor=1,worker_logbuf_size=8,read_buf_mem_limit=2";
    let serve = served(words).settings;
    assert_eq!(serve.backlog, 100_000);
    let expected = [
        ("chunk_size", "96"),
        ("growth_factor", "1.50"),
        ("hash_algorithm", "jenkins"),
        ("hashpower_init", "20"),
        ("hot_lru_pct", "30"),
        ("hot_max_factor", "1.00"),
        ("inter", "127.0.0.1:7,127.0.0.2"),
        ("memory_file", "/x/memory"),
        ("num_napi_ids", "2"),
        ("read_buf_mem_limit", "2097152"),
        ("reqs_per_event", "200"),
        ("slab_automove", "1"),
        ("slab_automove_ratio", "0.50"),
        ("slab_automove_window", "60"),
        ("slab_chunk_max", "16384"),
        ("worker_logbuf_size", "8192"),
    ];
    let told: Vec<(&str, &str)> = serve.told.iter().map(|(name, text)| (*name, text.as_str())).collect();
    assert_eq!(told, expected);
    assert!(served("").settings.told.is_empty());
    let old = served("-o no_modern").settings;
    assert!(!old.lru_crawler && !old.refuses_when_full);
    assert!(served("-o no_lru_crawler,lru_crawler").settings.lru_crawler);
    let detail = served("-D /x").settings;
    assert_eq!((detail.prefix_delimiter, detail.detail_enabled), (b'/', true));
    assert!(!served("").settings.detail_enabled);
    assert!(matches!(read("--license"), Ok(Action::License)));
}

#[test]
fn sizes_are_written_as_item_sizes_are() {
    let carried = |size: &str| {
        let plan = served(&format!("--replication-listen 127.0.0.1:0 --log-bytes {size}"));
        plan.config.replicated_item_bytes_max()
    };
    assert_eq!(carried("262144"), carried("256k"));
    assert_eq!((carried("2M") > carried("1M"), carried("8m")), (true, 1 << 20));
    served("--replication-listen 127.0.0.1:0 --max-unacked-bytes 64m");
    assert_eq!(served("-o request_rate=2K").settings.request_bytes_per_second_min, 2048);
    assert!(
        matches!(read("bench -b 4k"), Ok(Action::Bench(plan)) if plan.load.population.value_bytes == 4096)
    );
}

#[test]
fn u1_udp_is_off_and_its_port_is_memcacheds() {
    let ports = |line: &str| {
        let settings = served(line).settings;
        let texts = |addresses: &[SocketAddr]| {
            addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        };
        (texts(&settings.addresses), texts(&settings.udp_addresses))
    };
    let expect = |line: &str, tcp: &str, udp: &str| {
        assert_eq!(ports(line), (tcp.to_owned(), udp.to_owned()), "{line}");
    };
    expect("", "127.0.0.1:11211", "");
    expect("-U 0", "127.0.0.1:11211", "");
    // As memcached: a port for UDP alone is TCP's, too.
    expect("-U 5", "127.0.0.1:5", "127.0.0.1:5");
    expect("-U 5 -p 6", "127.0.0.1:6", "127.0.0.1:5");
    expect("-U -1 -p -1", "127.0.0.1:0", "127.0.0.1:0");
    expect("-U -1", "127.0.0.1:0", "127.0.0.1:0");
    expect("-U 5 -p 0", "", "127.0.0.1:5");
    expect("-U 0 -p 0", "127.0.0.1:0", "");
    expect("-U 5 -l 127.0.0.1:7,127.0.0.1:8,[::1]", "127.0.0.1:7 127.0.0.1:8 [::1]:5", "127.0.0.1:5 [::1]:5");
    assert!(served("-U 5 -s /x").settings.udp_addresses.is_empty());
}

#[test]
fn what_cannot_be_is_refused_with_a_hint() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"fifteen letters\n").unwrap();
    let short = format!("--replication-secret-file {} --replica-of a:1", file.path().display());
    let short_token = format!("--admin 0.0.0.0:1 --admin-token-file {}", file.path().display());
    let seventeen = "--peer 127.0.0.1:7001 ".repeat(17);
    let cases = [
        (seventeen.as_str(), "17 are named, and a group has 16 nodes at most"),
        ("-m 0", "give 1 to"),
        ("-I 2g", "1k to 1g"),
        ("-I 500", "1k to 1g"),
        ("-I 40m", "half of the memory"),
        ("-I x", "number of bytes"),
        ("-I -1m", "-I -1m: give a number of bytes"),
        ("-o request_rate=-1k", "-o request_rate=-1k: give a number of bytes"),
        ("-U 11211 -Y /dev/null", "leave -Y or -U out"),
        ("-U 11211 -S --sasl-password-file /dev/null", "names nobody"),
        ("-U 11211 -o track_sizes", "leave -o track_sizes or -U out"),
        ("-U 11211 -Z -o ssl_chain_cert=x", "not encrypted"),
        ("-U 11211 -m 1024 -I 65m", "at most -I 64m"),
        ("-o nonsense", "no such suboption"),
        ("-l 1.2.3.4:x", "-l 1.2.3.4:x"),
        ("-Z -o ssl_chain_cert=x -l notls:127.0.0.1 -l 127.0.0.1", "with notls: and without"),
        ("--replica-of 127.0.0.1:7001 --replication-listen 127.0.0.1:7001", "own --replication-listen"),
        ("--replica-of localhost:7001 --replication-listen 127.0.0.1:7001", "own --replication-listen"),
        ("-l no-such-host.invalid", "-l no-such-host.invalid"),
        ("-l [::1", "-l [::1"),
        ("--replication-listen 0.0.0.0:1", "--replication-secret-file"),
        ("--replication-listen x", "--replication-listen x"),
        ("--transport quic", "needs --replication-tls-cert"),
        ("--ack semi-sync:1", "--ack does nothing without replication"),
        ("--max-unacked-ms 5", "does nothing without replication"),
        ("--replication-listen 127.0.0.1:0 --max-unacked-ms 0", "--max-unacked-ms 0: a replica always lacks"),
        ("--replication-listen 127.0.0.1:0 --max-unacked-bytes 0", "--max-unacked-bytes 0: a replica"),
        ("--bootstrap", "--replication-listen"),
        ("--replica-of nowhere", "HOST:PORT"),
        ("--admin 0.0.0.0:1", "--admin-token-file"),
        ("--replication-secret-file /nonexistent --replica-of a:1", "can't read"),
        ("--replication-secret-file /dev/zero --replica-of a:1", "more than 4096 bytes"),
        ("--replication-secret-file /dev/null --replica-of a:1", "is empty"),
        (short.as_str(), "has 15 bytes and could be guessed; write at least 16 random characters"),
        (short_token.as_str(), "--admin-token-file has 15 bytes and could be guessed from other machines"),
        ("-m 1 -I 1m", "half of the memory"),
        ("--replica-of 10.0.0.1:7001", "--replica-of 10.0.0.1:7001 is not a loopback address, as far"),
        ("--peer cache-2.example:7001", "--replication-secret-file"),
        ("--peer ::1:7001", "HOST:PORT"),
        ("--peer 127.0.0.1:0", "HOST:PORT"),
        ("--group g", "--group does nothing without replication"),
        ("--replica-reads", "--replica-reads does nothing"),
        ("--log-bytes 100000", "--log-bytes does nothing"),
        ("-o ssl_chain_cert=a", "-o ssl_chain_cert"),
        ("-S -B ascii", "only the binary protocol"),
        ("-S -B auto", "only the binary protocol"),
        ("-S --sasl-password-file /nonexistent", "can't read"),
        ("-S --sasl-password-file /dev/zero", "more than"),
        ("-S --sasl-password-file /dev/null", "names nobody"),
        ("-Z", "-o ssl_chain_cert"),
        ("-Z -o ssl_chain_cert=a,ssl_verify_mode=4", "-o ssl_verify_mode=4"),
        ("-Z -o ssl_chain_cert=a,ssl_verify_mode=2", "ssl_ca_cert"),
        ("-Z -o ssl_chain_cert=a,ssl_min_version=0", "-o ssl_min_version=0"),
        ("-l notls:127.0.0.1", "does nothing without -Z"),
        ("-l unix:/tmp/x", "-s /tmp/x"),
        ("-Z -o ssl_chain_cert=a,ssl_ciphers=b", "-o ssl_ciphers=b: not supported"),
        ("-Z -o ssl_chain_cert=a,ssl_keyformat=2", "-o ssl_keyformat=2"),
        ("-Y /dev/null -B auto", "only the text protocol"),
        ("-Y /dev/null -B binary", "only the text protocol"),
        ("-N 5", "at most as many as there are threads"),
    ];
    refuses(&cases);
}

#[test]
fn z9_words_without_effect_have_memcacheds_bounds() {
    refuses(&[
        ("-o ext_path=/x:1G", "no storage beside memory"),
        ("-o proxy_config=x", "no proxy"),
        ("-o hashpower=11", "from 12 to 32"),
        ("-o hashpower", "from 12 to 32"),
        ("-o hash_algorithm=md5", "murmur3"),
        ("-o slab_automove=3", "0, 1 or 2"),
        ("-o slab_automove_ratio=0", "above 0, at most 1"),
        ("-o slab_automove_window=2", "from 3 to"),
        ("-o hot_max_factor=-1", "above 0"),
        ("-o lru_crawler_sleep=1000001", "from 0 to 1000000"),
        ("-o hot_lru_pct=50,warm_lru_pct=31", "80 at most"),
        ("-o tail_repair_time=9", "from 10 to"),
    ]);
}

fn refuses(cases: &[(&str, &str)]) {
    for (line, hint) in cases {
        match read(line) {
            Err(Refusal::Message(text) | Refusal::Host(text)) => {
                assert!(text.contains(hint), "{line}: {text}")
            }
            other => panic!("{line}: {other:?}"),
        }
    }
}

#[test]
fn what_the_command_line_does_not_allow_is_refused_in_one_line() {
    let usage = [
        ("-t 0", "give 1 to 256"),
        ("--ack strict", "strict:N"),
        ("--ack semi-sync:0", "semi-sync:N"),
        ("--ack-timeout-ms 0", "give 1 to 60000"),
        ("ack strict:16", "strict:N"),
        ("-a 800", "octal"),
        ("-a 1777", "octal"),
        ("--nonsense", "unexpected argument '--nonsense'"),
        ("--replica-off a:1", "tip: "),
        ("-m -5", "--memory-limit"),
        ("-t -5", "--threads"),
        ("--node-slot -5", "--node-slot"),
        ("ack -5", "<MODE>"),
        ("bench --seconds -1", "--seconds"),
        ("bench -b 2g", "at most 1g"),
        ("--log-bytes 32q", "such as 32m"),
        ("--log-bytes -32m", "--log-bytes"),
        ("--log-bytes 4095", "give 4k to 32g"),
        ("--log-bytes 33g", "give 4k to 32g"),
        ("--max-unacked-bytes 1.5m", "such as 32m"),
        ("-p x", "give 1 to 65535"),
        ("-p -2", "-1 for a free port"),
        ("-U x", "-1 for a free port"),
        ("-U 65536", "-1 for a free port"),
        ("-B text", "give auto, ascii or binary"),
        ("-f 1", "above 1"),
        ("-n 0", "give 1 or more"),
        ("-R 0", "give 1 or more"),
        ("-N 0", "give 1 to "),
        ("-b 0", "give 1 to "),
        ("-c -1", "give 1 or more"),
        ("--sasl-password-file x", "not provided"),
        ("--node-slot 16", "give 0 to 15"),
        ("--bootstrap --replica-of a:1", "cannot be used with"),
        ("--admin-token-file x", "not provided"),
        ("follow", "not provided"),
        ("follow 7001", "give HOST:PORT"),
        ("status --admin nowhere", "give HOST:PORT"),
    ];
    for (line, hint) in usage {
        let Err(Refusal::Clap(error)) = read(line) else { panic!("{line}") };
        let text = in_one_line(&error);
        assert!(text.contains(hint) && !text.contains('\n'), "{line}: {text:?}");
    }
}

#[test]
fn g2_g5_g8_what_operators_switch_off_is_off() {
    let on = served("").settings;
    assert!(on.dump_enabled && on.flush_enabled && on.watch_enabled);
    assert!(on.debug_clock.is_none() && served("--debug-time").settings.debug_clock.is_some(), "z11");
    for flags in ["-FXW", "--disable-flush-all --disable-dumping --disable-watch"] {
        let off = served(flags).settings;
        assert!(!off.dump_enabled && !off.flush_enabled && !off.watch_enabled);
    }
}

#[test]
fn whoever_is_told_to_promote_a_node_is_told_the_whole_command() {
    let at = |address: &str| promote_command(Some(address.parse().unwrap()), None);
    assert_eq!(at("127.0.0.1:7500"), "hotspare promote --admin 127.0.0.1:7500");
    assert!(at("127.0.0.1:0").contains("--admin ADDRESS"), "the port is not known yet");
    assert!(promote_command(None, None).contains("has to be started with: --admin ADDRESS"));
    let with_token = promote_command(Some("10.0.0.1:7500".parse().unwrap()), Some(Path::new("/etc/token")));
    assert_eq!(with_token, "hotspare promote --admin 10.0.0.1:7500 --admin-token-file /etc/token");
}

#[test]
fn b1_q2_the_protocol_is_forced_and_sasl_makes_it_binary() {
    assert_eq!(served("-p 0").settings.protocol, Protocol::Auto);
    assert_eq!(served("--protocol=ascii").settings.protocol, Protocol::Ascii);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    std::fs::write(&file, "ada:pass").unwrap();
    let settings = served(&format!("-S --sasl-password-file {}", file.display())).settings;
    assert_eq!(settings.protocol, Protocol::Binary);
    assert!(settings.sasl_users.unwrap().admit(b"ada", b"pass"));
    let with_token = served(&format!("-Y {}", file.display())).settings;
    assert_eq!(
        (with_token.protocol, &*with_token.told["auth_enabled_ascii"]),
        (Protocol::Ascii, &*file.to_string_lossy())
    );
    for way in [format!("-Y {}", file.display()), format!("-S --sasl-password-file {}", file.display())] {
        let Err(Refusal::Message(why)) = read(&format!("-U -1 {way}")) else { panic!("{way}") };
        assert!(why.contains("over UDP"), "u1: {way}: {why}");
        assert!(served(&format!("-U 0 {way}")).settings.udp_addresses.is_empty());
    }
}

#[test]
fn commands_are_read() {
    let Ok(Action::Control(request)) = read("promote --force --admin 127.0.0.1:1") else { panic!() };
    assert_eq!((request.kind, &*request.node.address), (ControlKind::Promote { force: true }, "127.0.0.1:1"));
    let Ok(Action::Keepalived(plan)) = read("keepalived --fifo f --admin 127.0.0.1:1 --other b:7400") else {
        panic!()
    };
    assert_eq!((plan.fifo.to_str(), plan.other.as_deref(), plan.instance), (Some("f"), Some("b:7400"), None));
    for wrong in ["keepalived", "keepalived --fifo f --other 7400", "promotable --admin 7400"] {
        assert!(read(wrong).is_err(), "{wrong}");
    }
    assert!(matches!(read("demo --json"), Ok(Action::Demo(DemoOptions { json: true, trace: None }))));
}

#[test]
fn certificates_take_replication_off_the_loopback() {
    let folder = tempfile::tempdir().unwrap();
    let issued = certificate_flags(folder.path());
    let plan = |more: &str| served(&format!("--replica-of cache-1.example:7001 {issued} {more}"));
    assert!(matches!(plan("").replication_transport, Transport::Tcp { secret: None, credentials: Some(_) }));
    assert!(matches!(plan("--transport quic").replication_transport, Transport::Quic { .. }));
    let refused = |line: &str| match read(line) {
        Err(Refusal::Message(why) | Refusal::Host(why)) => why,
        Err(Refusal::Clap(why)) => in_one_line(&why),
        Ok(action) => panic!("{line}: {action:?}"),
    };
    assert!(refused("--replica-of 127.0.0.1:1 --transport quic").contains("needs --replication-tls-cert"));
    assert!(refused("--replica-of 127.0.0.1:1 --transport carrier-pigeon").contains("tcp or quic"));
    assert!(refused(&issued).contains("does nothing without replication"));
    assert!(refused("--replica-of 127.0.0.1:1 --replication-tls-cert x").contains("--replication-tls-key"));
    let missing = "--replication-tls-cert x --replication-tls-key x --replication-tls-ca /nonexistent/ca.pem";
    assert!(refused(&format!("--replica-of 127.0.0.1:1 {missing}")).contains("/nonexistent/ca.pem"));
}

/// The flags that name a node's certificates, made in `folder`.
fn certificate_flags(folder: &Path) -> String {
    let authority = hotspare_tls::issue::Authority::new("a group").unwrap();
    let issued = authority.issue("cache-1", &[]).unwrap();
    let texts = [("ca", authority.pem().certificate), ("cert", issued.certificate), ("key", issued.key)];
    let flags = texts.map(|(name, text)| {
        let file = folder.join(name);
        std::fs::write(&file, text).unwrap();
        format!("--replication-tls-{name} {}", file.display())
    });
    flags.join(" ")
}

#[test]
fn replication_flags_make_a_group() {
    assert!(served("--replication-listen 127.0.0.1:0").replicates);
    assert!(served("--replica-of 127.0.0.1:7001 --node-slot 3").replicates);
    assert!(served("--peer 127.0.0.1:7001").replicates);
}

const FLAGS: &str = "\
    -p -m -I -c -t -U -l127.0.0.1 -l[::1]:5 -l[::1 -l; -lnotls:127.0.0.1:7 -o -v -vv -M -A -f -n -R -b -B -Y -S -s -a -d -P -u -k -r -Z -X -F -W -h -V -D -N -L -i --peer \
    --replica-of --slot --replication-listen --admin --group --log-bytes --bootstrap --debug-time \
    --node-slot --replication-secret-file --admin-token-file --sasl-password-file --ack --transport";

const VALUES: &str = "\
    0 1 -1 64 1024 65536 4294967296 18446744073709551616 1k 2m 1g 9999999g k 1.25 = auto 127.0.0.1 \
    127.0.0.1:5 [::1] [::1]:70000 [ notls:127.0.0.1 ; 777 idle_timeout=5,,modern idle_timeout=4294967296 \
    ssl_key= ssl_verify_mode=9 status promote /dev/null /nonexistent async tcp";

fn one_of(words: &'static str) -> impl Strategy<Value = String> {
    prop::sample::select(words.split(' ').map(str::to_owned).collect::<Vec<_>>())
}

/// Flags, values that fit some of them, and noise. A host's name is not among them: it would be looked up.
fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => one_of(FLAGS),
        4 => one_of(VALUES),
        1 => "-[a-km-zA-Z][0-9km,;=.-]{0,6}",
        1 => "[^a-zA-Z]{0,8}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_words_are_a_sound_plan_or_refused_with_a_reason(words in prop::collection::vec(word(), 0..6)) {
        match parse(std::iter::once("hotspare".to_owned()).chain(words).map(OsString::from)) {
            Ok(Action::Serve(plan)) => {
                let settings = &plan.settings;
                prop_assert!(!settings.addresses.is_empty() || !settings.udp_addresses.is_empty() || settings.unix_socket.is_some());
                prop_assert!((1 << 10..=settings.memory_bytes_max / 2).contains(&settings.item_bytes_max));
                prop_assert!((1 << 20..=hotspare::MEMORY_BYTES_MAX).contains(&settings.memory_bytes_max));
                prop_assert!(settings.threads > 0 && settings.connections_max > 0);
            }
            Ok(_) => {}
            Err(Refusal::Message(why) | Refusal::Host(why)) => prop_assert!(!why.is_empty()),
            Err(Refusal::Clap(error)) => prop_assert!(!in_one_line(&error).contains('\n')),
        }
    }

    #[test]
    fn a_secret_is_what_was_written_without_the_space_behind_it(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        match read_secret(file.path(), "secret") {
            Ok(secret) => {
                let rest = bytes.strip_prefix(&secret[..]).unwrap();
                prop_assert!(!secret.is_empty() && rest.iter().all(u8::is_ascii_whitespace));
            }
            Err(why) => prop_assert!(why.contains("is empty") && bytes.trim_ascii().is_empty(), "{}", why),
        }
    }
}

#[test]
fn a_secret_without_an_end_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), vec![b'x'; secrets::SECRET_BYTES_MAX as usize + 1]).unwrap();
    assert!(read_secret(file.path(), "secret").unwrap_err().contains("more than"));
    assert!(read_secret(Path::new("/dev/zero"), "secret").unwrap_err().contains("more than"));
}
