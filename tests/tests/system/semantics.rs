//! The rules of memcached, each as bytes in and bytes out, sent whole and byte by byte.
//!
//! Lives here: tables of cases, each citing the rule of the semantics spec it pins, and the rules that need more
//! than one reply. Not here: meta commands and the binary protocol.

use std::time::Duration;

use tests::wait;

use crate::wire::Wire;

/// A rule, what is sent, and what comes back.
type Case = (&'static str, &'static str, &'static str);

const LINE_ERROR: &str = "CLIENT_ERROR bad command line format\r\n";

/// Sends each case on a fresh connection to an empty cache, whole and byte by byte.
fn check(cases: &[Case]) {
    let mut server = crate::standalone(16);
    for trickled in [false, true] {
        for (rule, request, reply) in cases {
            let mut wire = Wire::connect(server.clients());
            assert_eq!(wire.ask("flush_all\r\n"), "OK");
            let request = format!("{request}version\r\n");
            match trickled {
                true => wire.trickle(request.as_bytes()),
                false => wire.send(&request),
            }
            let found = wire.up_to(reply.len() + "VERSION ".len());
            let found = String::from_utf8_lossy(&found).into_owned();
            assert_eq!(
                found,
                format!("{reply}VERSION "),
                "{rule}, byte by byte: {trickled}, request {request:?}"
            );
        }
    }
}

#[test]
fn f1_f2_f3_lines_are_framed_as_memcached_frames_them() {
    check(&[
        ("F1 bare newline", "get a\n", "END\r\n"),
        ("F1 mixed ends", "set a 0 0 1\nx\r\nget a\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
        ("F2 several spaces", "set  a   1 0  1\r\nx\r\nget   a\r\n", "STORED\r\nVALUE a 1 1\r\nx\r\nEND\r\n"),
        ("F2 leading space", " get a\r\n", "ERROR\r\n"),
        ("F3 upper case", "GET a\r\n", "ERROR\r\n"),
        ("F3 unknown name", "frobnicate a\r\n", "ERROR\r\n"),
    ]);
}

#[test]
fn f4_f5_f9_bad_lines_are_refused_and_the_connection_stays() {
    check(&[
        ("F4 empty line", "\r\n", LINE_ERROR),
        ("F4 short line", " \n", LINE_ERROR),
        ("F5 bare get", "get\r\n", LINE_ERROR),
        ("F5 too few tokens", "set a 0 0\r\n", LINE_ERROR),
        ("F5 bare delete", "delete\r\n", LINE_ERROR),
        ("F5 incr without delta", "incr a\r\n", LINE_ERROR),
        (
            "F5 no data block is skipped",
            "set a 0 0 x\r\nget a\r\n",
            "CLIENT_ERROR bad command line format\r\nEND\r\n",
        ),
        ("F9 negative length", "set a 0 0 -1\r\n", LINE_ERROR),
        ("F9 huge length", "set a 0 0 2147483647\r\n", LINE_ERROR),
        ("F10 errors before noreply are sent", "set a 0 0 x noreply\r\n", LINE_ERROR),
    ]);
}

#[test]
fn f8_and_f10_replies_keep_the_order_and_noreply_is_silent() {
    check(&[
        (
            "F8 pipelined",
            "set a 0 0 1\r\n1\r\nincr a 1\r\nget a\r\ndelete a\r\nget a\r\n",
            "STORED\r\n2\r\nVALUE a 0 1\r\n2\r\nEND\r\nDELETED\r\nEND\r\n",
        ),
        ("F10 set", "set a 0 0 1 noreply\r\nx\r\nget a\r\n", "VALUE a 0 1\r\nx\r\nEND\r\n"),
        ("F10 add that fails", "set a 0 0 1 noreply\r\nx\r\nadd a 0 0 1 noreply\r\ny\r\n", ""),
        ("F10 delete of nothing", "delete a noreply\r\n", ""),
        ("F10 incr of nothing", "incr a 1 noreply\r\n", ""),
        ("F10 touch of nothing", "touch a 1 noreply\r\n", ""),
        ("F10 in place of a number", "incr a noreply\r\ntouch a noreply\r\n", ""),
        (
            "F10 not exactly noreply",
            "delete a noreply\r\r\n",
            "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n",
        ),
        ("F10 not the last token", "set noreply 0 0 1\r\nx\r\n", "STORED\r\n"),
    ]);
}

#[test]
fn f3_and_f6_hostile_lines_close_the_connection() {
    let mut server = crate::standalone(16);
    let long = "x".repeat(4096);
    for request in ["GET / HTTP/1.1\r\n", long.as_str()] {
        let mut wire = Wire::connect(server.clients());
        wire.send(request);
        assert!(wire.is_closed(), "{:?}…", &request[..10]);
    }
}

#[test]
fn f6_a_get_line_may_be_longer_than_any_buffer() {
    let keys: String = (0..2_000).map(|key| format!(" key-{key}")).collect();
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    assert_eq!(wire.ask("set key-1999 0 0 1\r\nx\r\n"), "STORED");
    assert_eq!(wire.ask(&format!("get{keys}\r\n")), "VALUE key-1999 0 1");
}

#[test]
fn l1_l2_r2_limits_hold() {
    let longest: &'static str = "k".repeat(250).leak();
    let longer: &'static str = "k".repeat(251).leak();
    let set = |key: &str| -> &'static str { format!("set {key} 0 0 1\r\nx\r\n").leak() };
    check(&[
        ("L1 250 bytes", set(longest), "STORED\r\n"),
        ("L1 and S3 251 bytes, block skipped", set(longer), LINE_ERROR),
        (
            "L2 the largest flags",
            "set a 4294967295 0 1\r\nx\r\nget a\r\n",
            "STORED\r\nVALUE a 4294967295 1\r\nx\r\nEND\r\n",
        ),
        ("L2 flags too large", "set a 4294967296 0 1\r\nx\r\n", LINE_ERROR),
        (
            "R2 long key among others",
            format!("set a 0 0 1\r\nx\r\nget a {longer} a\r\n").leak(),
            "STORED\r\nCLIENT_ERROR bad command line format\r\n",
        ),
    ]);
}

#[test]
fn l3_and_l5_a_set_too_large_is_refused_and_removes_the_old_item() {
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    let block = format!("{}\r\n", "v".repeat(1 << 20));
    for (command, survives) in [("add", true), ("replace", true), ("append", true), ("set", false)] {
        assert_eq!(wire.ask("set big 0 0 1\r\nx\r\n"), "STORED");
        let reply = wire.ask(&format!("{command} big 0 0 1048576\r\n{block}"));
        assert_eq!(reply, "SERVER_ERROR object too large for cache", "{command}");
        let found = wire.ask("get big\r\n");
        assert_eq!(found == "VALUE big 0 1", survives, "{command}: {found}");
        if survives {
            assert_eq!((wire.line(), wire.line()), ("x".to_owned(), "END".to_owned()));
        }
    }
}

#[test]
fn x3_times_beyond_32_bits_mean_what_they_say() {
    check(&[
        ("X3 set", "set a 0 99999999999 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
        ("X3 touch", "set a 0 9 1\r\nx\r\ntouch a 4294967297\r\nmg a\r\n", "STORED\r\nTOUCHED\r\nHD\r\n"),
        ("X3 gat", "set a 0 9 1\r\nx\r\ngat 2147483648 a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
        ("X3 below", "set a 0 -2147483649 1\r\nx\r\nget a\r\n", "STORED\r\nEND\r\n"),
        ("X3 flush_all", "set a 0 0 1\r\nx\r\nflush_all 99999999999\r\nmg a\r\n", "STORED\r\nOK\r\nHD\r\n"),
    ]);
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    for ask in
        ["ms a 1 T99999999999\r\nx\r\nmg a t\r\n", "mg b N99999999999 t\r\n", "mg b T99999999998 t\r\n"]
    {
        wire.send(ask);
        let answer =
            std::iter::from_fn(|| Some(wire.line())).find(|line| line.contains(" t")).expect("a line");
        let left = answer.split(" t").nth(1).and_then(|rest| rest.split(' ').next()).expect("a time to live");
        assert!(left.parse::<u64>().is_ok_and(|seconds| seconds > 90_000_000_000), "{ask}: {answer}");
    }
}

#[test]
fn x1_x2_x4_expiry_is_relative_up_to_30_days_absolute_beyond_and_negative_is_past() {
    check(&[
        ("X1 never", "set a 0 0 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
        ("X1 negative", "set a 0 -1 1\r\nx\r\nget a\r\n", "STORED\r\nEND\r\n"),
        ("X1 30 days", "set a 0 2592000 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
        ("X2 long ago", "set a 0 2592001 1\r\nx\r\nget a\r\n", "STORED\r\nEND\r\n"),
        ("X1 far ahead", "set a 0 2147483000 1\r\nx\r\nget a\r\n", "STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
        (
            "X1 touch to the past",
            "set a 0 0 1\r\nx\r\ntouch a -1\r\nget a\r\n",
            "STORED\r\nTOUCHED\r\nEND\r\n",
        ),
        (
            "X4 the expired does not block add",
            "set a 0 -1 1\r\nx\r\nadd a 0 0 1\r\ny\r\n",
            "STORED\r\nSTORED\r\n",
        ),
    ]);
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    assert_eq!(wire.ask("set a 0 1 1\r\nx\r\n"), "STORED");
    wait::wait_until("an expiry of one second", Duration::from_secs(5), || {
        let gone = wire.ask("get a\r\n") == "END";
        if !gone {
            assert_eq!((wire.line(), wire.line()), ("x".to_owned(), "END".to_owned()));
        }
        gone
    });
}

/// The CAS unique of `key`.
fn unique(wire: &mut Wire, key: &str) -> u64 {
    let line = wire.ask(&format!("gets {key}\r\n"));
    let unique = line.rsplit(' ').next().expect("a last token").parse().expect("a CAS unique");
    wire.line();
    assert_eq!(wire.line(), "END");
    unique
}

#[test]
fn c1_writes_give_a_new_unique_and_touches_do_not() {
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    assert_eq!(wire.ask("set a 0 0 1\r\n1\r\n"), "STORED");
    let mut last = unique(&mut wire, "a");
    for write in
        ["set a 0 0 1\r\n1\r\n", "incr a 1\r\n", "append a 0 0 1\r\n1\r\n", "prepend a 0 0 1\r\n1\r\n"]
    {
        wire.ask(write);
        let next = unique(&mut wire, "a");
        assert!(next > last, "{write}: {next} after {last}");
        last = next;
    }
    assert_eq!(wire.ask("touch a 100\r\n"), "TOUCHED");
    assert_eq!(unique(&mut wire, "a"), last);
}

#[test]
fn c2_cas_stores_on_the_same_unique_only() {
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    assert_eq!(wire.ask("cas a 0 0 1 1\r\nx\r\n"), "NOT_FOUND");
    assert_eq!(wire.ask("set a 0 0 1\r\nx\r\n"), "STORED");
    let first = unique(&mut wire, "a");
    assert_eq!(wire.ask("cas a 0 0 1 0\r\ny\r\n"), "EXISTS");
    assert_eq!(wire.ask(&format!("cas a 0 0 1 {}\r\ny\r\n", first + 1)), "EXISTS");
    assert_eq!(wire.ask(&format!("cas a 0 0 1 {first}\r\ny\r\n")), "STORED");
    assert_eq!(wire.ask(&format!("cas a 0 0 1 {first}\r\nz\r\n")), "EXISTS");
}

#[test]
fn s1_s2_s3_s4_storage_commands_store_what_they_should() {
    check(&[
        ("S1 add", "add a 0 0 1\r\nx\r\nadd a 0 0 1\r\ny\r\n", "STORED\r\nNOT_STORED\r\n"),
        (
            "S1 replace",
            "replace a 0 0 1\r\nx\r\nset a 0 0 1\r\nx\r\nreplace a 0 0 1\r\ny\r\n",
            "NOT_STORED\r\nSTORED\r\nSTORED\r\n",
        ),
        ("S1 append to nothing", "append a 0 0 1\r\nx\r\n", "NOT_STORED\r\n"),
        (
            "S1 append and prepend keep flags",
            "set a 7 0 1\r\nb\r\nappend a 9 0 1\r\nc\r\nprepend a 9 0 1\r\na\r\nget a\r\n",
            "STORED\r\nSTORED\r\nSTORED\r\nVALUE a 7 3\r\nabc\r\nEND\r\n",
        ),
        (
            "S2 bad data chunk, the old item survives",
            "set a 0 0 1\r\nx\r\nset a 0 0 1\r\nyzz",
            "STORED\r\nCLIENT_ERROR bad data chunk\r\n",
        ),
        (
            "S3 bad flags, block skipped",
            "set a f 0 1\r\nx\r\nget a\r\n",
            "CLIENT_ERROR bad command line format\r\nEND\r\n",
        ),
        (
            "S3 bad exptime, block skipped",
            "set a 0 f 1\r\nx\r\nget a\r\n",
            "CLIENT_ERROR bad command line format\r\nEND\r\n",
        ),
        (
            "S3 bad cas number, block skipped",
            "cas a 0 0 1 f\r\nx\r\nget a\r\n",
            "CLIENT_ERROR bad command line format\r\nEND\r\n",
        ),
        ("S4 empty value", "set a 0 0 0\r\n\r\nget a\r\n", "STORED\r\nVALUE a 0 0\r\n\r\nEND\r\n"),
        (
            "S4 binary-safe",
            "set a 0 0 5\r\n\0\r\nb\n\r\nget a\r\n",
            "STORED\r\nVALUE a 0 5\r\n\0\r\nb\n\r\nEND\r\n",
        ),
    ]);
}

#[test]
fn r1_r3_retrieval_answers_hits_in_order_and_misses_silently() {
    check(&[
        (
            "R1 order and repeats",
            "set a 1 0 1\r\nx\r\nset b 2 0 2\r\nyy\r\nget b c a b\r\n",
            "STORED\r\nSTORED\r\nVALUE b 2 2\r\nyy\r\nVALUE a 1 1\r\nx\r\nVALUE b 2 2\r\nyy\r\nEND\r\n",
        ),
        (
            "R3 gat",
            "set a 1 0 1\r\nx\r\ngat 100 a\r\ngat -1 a\r\nget a\r\n",
            "STORED\r\nVALUE a 1 1\r\nx\r\nEND\r\nVALUE a 1 1\r\nx\r\nEND\r\nEND\r\n",
        ),
        ("R3 bad exptime", "gat x a\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
        ("R3 touch, bad exptime", "touch a x\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
    ]);
}

#[test]
fn a1_a2_a3_a4_a5_a6_z1_z3_delete_counters_and_touch() {
    const NON_NUMERIC: &str = "STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n";
    check(&[
        ("A1", "set a 0 0 1\r\nx\r\ndelete a\r\ndelete a\r\n", "STORED\r\nDELETED\r\nNOT_FOUND\r\n"),
        ("A2 missing", "incr a 1\r\ndecr a 1\r\n", "NOT_FOUND\r\nNOT_FOUND\r\n"),
        ("A2 bad delta", "incr a x\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
        ("A2 negative delta", "incr a -1\r\n", "CLIENT_ERROR invalid numeric delta argument\r\n"),
        ("A3 text", "set a 0 0 1\r\nx\r\nincr a 1\r\n", NON_NUMERIC),
        ("A3 empty", "set a 0 0 0\r\n\r\nincr a 1\r\n", NON_NUMERIC),
        ("A3 over 64 bits", "set a 0 0 20\r\n18446744073709551616\r\nincr a 1\r\n", NON_NUMERIC),
        ("A4 wraps", "set a 0 0 20\r\n18446744073709551615\r\nincr a 2\r\n", "STORED\r\n1\r\n"),
        ("A4 stops at 0", "set a 0 0 1\r\n5\r\ndecr a 6\r\n", "STORED\r\n0\r\n"),
        (
            "A4 flags kept",
            "set a 7 0 1\r\n5\r\nincr a 1\r\nget a\r\n",
            "STORED\r\n6\r\nVALUE a 7 1\r\n6\r\nEND\r\n",
        ),
        (
            "A5 padded",
            "set n 0 0 2\r\n10\r\ndecr n 1\r\nget n\r\n",
            "STORED\r\n9\r\nVALUE n 0 2\r\n9 \r\nEND\r\n",
        ),
        (
            "A5 grows",
            "set n 0 0 2\r\n99\r\nincr n 1\r\nget n\r\n",
            "STORED\r\n100\r\nVALUE n 0 3\r\n100\r\nEND\r\n",
        ),
        (
            "A6",
            "touch a 1\r\nset a 3 0 1\r\nx\r\ntouch a 100\r\nget a\r\n",
            "NOT_FOUND\r\nSTORED\r\nTOUCHED\r\nVALUE a 3 1\r\nx\r\nEND\r\n",
        ),
        ("Z1 -1", "set a 0 0 2\r\n-1\r\nincr a 1\r\n", NON_NUMERIC),
        ("Z1 12a", "set a 0 0 3\r\n12a\r\nincr a 1\r\n", NON_NUMERIC),
        ("Z1 trailing space", "set a 0 0 3\r\n12 \r\nincr a 1\r\n", "STORED\r\n13\r\n"),
        ("Z1 leading space", "set a 0 0 3\r\n 12\r\nincr a 1\r\n", "STORED\r\n13\r\n"),
        ("Z2 delete with 0", "set a 0 0 1\r\nx\r\ndelete a 0\r\n", "STORED\r\nDELETED\r\n"),
        (
            "Z2 delete with 0 noreply",
            "set a 0 0 1\r\nx\r\ndelete a 0 noreply\r\nget a\r\n",
            "STORED\r\nEND\r\n",
        ),
        ("Z3 block ended by a bare newline", "set a 0 0 1\r\nx\nz", "CLIENT_ERROR bad data chunk\r\n"),
    ]);
}

#[test]
fn z2_delete_with_a_time_is_an_error_and_deletes_nothing() {
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    assert_eq!(wire.ask("set a 0 0 1\r\nx\r\n"), "STORED");
    let reply = wire.ask("delete a 5\r\n");
    assert!(reply.starts_with("CLIENT_ERROR bad command line format"), "{reply}");
    assert_eq!(wire.ask("get a\r\n"), "VALUE a 0 1");
}

#[test]
fn g_administration_answers() {
    check(&[
        ("G1 verbosity", "verbosity 1\r\n", "OK\r\n"),
        ("G1 verbosity without number", "verbosity x\r\n", LINE_ERROR),
        (
            "G2 flush",
            "set a 0 0 1\r\nx\r\nflush_all\r\nget a\r\nset a 0 0 1\r\ny\r\nget a\r\n",
            "STORED\r\nOK\r\nEND\r\nSTORED\r\nVALUE a 0 1\r\ny\r\nEND\r\n",
        ),
        (
            "G2 flush later",
            "set a 0 0 1\r\nx\r\nflush_all 100\r\nget a\r\n",
            "STORED\r\nOK\r\nVALUE a 0 1\r\nx\r\nEND\r\n",
        ),
        ("G2 noreply", "flush_all noreply\r\n", ""),
        ("G2 bad number", "flush_all x\r\n", "CLIENT_ERROR invalid exptime argument\r\n"),
        ("G5 reset", "stats reset\r\n", "RESET\r\n"),
        ("G5 unknown", "stats frobnicate\r\n", "ERROR\r\n"),
    ]);
}

#[test]
fn g1_quit_closes_and_g4_shutdown_is_refused_by_default() {
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    // Behind memcached's words stands what to do.
    assert!(wire.ask("shutdown\r\n").starts_with("SERVER_ERROR: shutdown not enabled"));
    assert_eq!(wire.ask("set a 0 0 1\r\nx\r\n"), "STORED");
    wire.send("quit\r\n");
    assert!(wire.is_closed());
}

#[test]
fn g5_stats_count_what_was_done() {
    let mut server = crate::standalone(16);
    let mut wire = Wire::connect(server.clients());
    wire.ask("set a 0 0 1\r\nx\r\n");
    wire.ask("get nothing\r\n");
    wire.send("stats\r\n");
    let lines: Vec<String> =
        std::iter::from_fn(|| Some(wire.line())).take_while(|line| line != "END").collect();
    for line in ["STAT cmd_set 1", "STAT get_misses 1", "STAT curr_items 1", "STAT limit_maxbytes 16777216"] {
        assert!(lines.iter().any(|found| found == line), "{line} in {lines:#?}");
    }
}

#[test]
fn z10_a_small_full_cache_drops_strictly_the_oldest() {
    let mut server = crate::standalone(3);
    let mut wire = Wire::connect(server.clients());
    let value = "v".repeat(66_560);
    for key in 0..101 {
        assert_eq!(wire.ask(&format!("set key-{key} 0 0 66560\r\n{value}\r\n")), "STORED");
    }
    let mut present = Vec::new();
    for key in 0..101 {
        let found = wire.ask(&format!("get key-{key}\r\n")) != "END";
        if found {
            assert_eq!((wire.line().len(), wire.line()), (66_560, "END".to_owned()));
        }
        present.push(found);
    }
    let oldest = present.iter().position(|found| *found).expect("the newest is there");
    assert!(oldest > 0 && present[oldest..].iter().all(|found| *found), "{present:?}");
}
