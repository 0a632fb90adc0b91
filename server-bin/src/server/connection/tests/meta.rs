//! The meta commands' rules as conversations: bytes in, bytes out.

use std::sync::Arc;

use super::*;
use hotspare::ManualClock;
use hotspare_memcached::meta::parse_request;

/// What the server answers, with each line's end as `|`. However the bytes arrive, the answer is the same.
fn talk(input: &str) -> String {
    let mut answers = [1, 3, 1 << 20].map(|piece_bytes| converse(&shared(), input, piece_bytes));
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[1], answers[2]);
    std::mem::take(&mut answers[0])
}

pub(super) fn converse(shared: &Shared, input: &str, piece_bytes: usize) -> String {
    let mut connection = Connection::new(&shared.settings);
    let mut socket = socket(input.replace('|', "\r\n").as_bytes(), piece_bytes);
    assert_eq!(run(shared, &mut connection, &mut socket), Turn::Waiting);
    String::from_utf8(socket.output).unwrap().replace("\r\n", "|")
}

/// Each command with what is answered to it, on one connection.
fn expect(exchanges: &[(&str, &str)]) {
    let shared = shared();
    for (input, output) in exchanges {
        assert_eq!(converse(&shared, input, 1 << 20), *output, "to {input}");
    }
    let all: String = exchanges.iter().map(|(input, _)| *input).collect();
    let answers: String = exchanges.iter().map(|(_, output)| *output).collect();
    assert_eq!(talk(&all), answers, "all at once and in pieces");
    shared.cache.check_invariants();
}

fn shared_with(clock: &Arc<ManualClock>) -> Shared {
    let config =
        Observation::default().of_cache(Config::new().memory_bytes_max(64 << 20).clock(clock.clone()));
    Shared { cache: Cache::new(config).unwrap(), ..super::shared() }
}

/// With a clock that stands still.
fn shared() -> Shared {
    shared_with(&Arc::new(ManualClock::new(1_700_000_000_000)))
}

#[test]
fn m1_returned_flags_come_in_the_order_of_the_request() {
    expect(&[
        ("ms k 3 F7|abc|", "HD|"),
        ("mg k s v O9 f t k c|", "VA 3 s3 O9 f7 t-1 kk c1|abc|"),
        ("mg k c k f|", "HD c1 kk f7|"),
        ("mg k|", "HD|"),
        ("mg miss k|", "EN kmiss|"),
    ]);
}

#[test]
fn m2_z6_one_parser_judges_the_flags_of_all() {
    expect(&[
        ("mg k !|", "CLIENT_ERROR invalid flag|"),
        ("mg k v v|", "CLIENT_ERROR duplicate flag|"),
        ("mg k v v !|", "CLIENT_ERROR invalid flag|"),
        ("ma k v v|", "CLIENT_ERROR invalid or duplicate flag|"),
        ("ms k 2 !|hi|mg k|", "CLIENT_ERROR invalid flag|EN|"),
        ("mg k Pproxy Lhint J5 D6 I x F9|", "EN|"),
        ("mg k Tsoon|", "CLIENT_ERROR bad token in command line format|"),
    ]);
}

#[test]
fn m3_a_binary_key_is_stored_decoded_and_echoed_encoded() {
    expect(&[
        ("ms Zm9v 2 b k|hi|", "HD kZm9v b|"),
        ("get foo|", "VALUE foo 0 2|hi|END|"),
        ("mg foo v|", "VA 2|hi|"),
        ("mg Zm9v v|", "EN|"),
        ("mg Zm9v b k v|", "VA 2 kZm9v b|hi|"),
        // The item knows that its key was encoded, however it is asked for, and whatever changes it but a new store.
        ("mg foo k|", "HD kZm9v b|"),
        ("append foo 0 0 1|!|", "STORED|"),
        ("mg foo k q u T0|", "HD kZm9v b|"),
        ("ms foo 0 MA T0 s||", "HD s3|"),
        ("md foo I|", "HD|"),
        ("mg foo k|", "HD kZm9v b X W|"),
        ("ms foo 1|5|", "HD|"),
        ("mg Zm9v b k|", "HD kfoo|"),
        ("ms Zm9v 1 b|5|", "HD|"),
        ("incr foo 1|", "6|"),
        ("ma foo T0|", "HD|"),
        ("mg foo k v|", "VA 1 kZm9v b|7|"),
        ("mg AAEC b N0 k|", "HD kAAEC b W|"),
        ("mg Zm9 b|", "CLIENT_ERROR error decoding key|"),
        ("ma AAECAw== b k N0 J7 v|", "VA 1 kAAECAw== b|7|"),
        ("md AAECAw== b k Ox|", "HD kAAECAw== b Ox|"),
        ("md AAECAw== b k|", "NF kAAECAw== b|"),
    ]);
}

#[test]
fn m2_of_several_bad_arguments_the_last_is_told() {
    expect(&[
        ("mg k Jx|", "CLIENT_ERROR invalid numeric initial value|"),
        ("mg k Dx|", "CLIENT_ERROR invalid numeric delta value|"),
        ("mg k Dx Tsoon|", "CLIENT_ERROR bad token in command line format|"),
        ("ms k 2 Tsoon MSS|hi|", "CLIENT_ERROR incorrect length for M token|"),
        ("ms k 2 Tsoon Fx|hi|", "CLIENT_ERROR bad token in command line format|"),
        ("ms k 2 Fx|hi|mg k|", "CLIENT_ERROR bad command line format|EN|"),
    ]);
}

#[test]
fn d3_d5_an_item_that_t_ends_is_a_hit_once_more_and_its_token_is_won() {
    expect(&[
        ("ms k 2 T100|hi|mg k T-1 R30 t v|", "HD|VA 2 t0 W|hi|"),
        ("mg k|", "EN|"),
        ("ms k 2|hi|md k I|mg k T-1 v|", "HD|HD|VA 2 X W|hi|"),
        ("mg k|", "EN|"),
    ]);
}

#[test]
fn d11_a_stale_item_stays_fetched_and_a_count_in_place_leaves_it_stale() {
    expect(&[
        ("ms k 2|15|mg k|md k I|mg k h|", "HD|HD|HD|HD h1 X W|"),
        ("md k I|incr k 1|mg k v|", "HD|16|VA 2 X W|16|"),
        ("md k I|ma k|mg k v|", "HD|HD|VA 2 X W|17|"),
        // One that grows is an item anew (rule S5).
        ("md k I|ma k D100|mg k v h|", "HD|HD|VA 3 h0|117|"),
        ("md k x|mg k h|", "HD|HD h0|"),
    ]);
}

#[test]
fn s5_what_was_appended_to_is_unread() {
    expect(&[
        ("ms k 2|hi|mg k|mg k h|", "HD|HD|HD h1|"),
        ("append k 0 0 1|!|mg k h v|", "STORED|VA 3 h0|hi!|"),
        ("ms k 1 MP|!|mg k h v|", "HD|VA 4 h0|!hi!|"),
    ]);
}

#[test]
fn m3_m7_g7_debug_lines_and_dumps_know_that_a_key_was_encoded() {
    let shared = shared();
    converse(&shared, "ms Zm9v 2 b|hi|ms bar 2|hi|", 1 << 20);
    for key in ["me foo|", "me Zm9v b|"] {
        let line = converse(&shared, key, 1 << 20);
        // As memcached writes it, without the b that `k` has behind it.
        assert!(line.starts_with("ME Zm9v exp=-1 ") && !line.ends_with(" b|"), "{line}");
    }
    let line = converse(&shared, "me bar|", 1 << 20);
    assert!(line.starts_with("ME bar exp=-1 ") && !line.ends_with(" b|"), "{line}");
    let dump = converse(&shared, "lru_crawler mgdump all|", 1 << 20);
    let mut lines: Vec<&str> = dump.split('|').collect();
    lines.sort_unstable();
    assert_eq!(lines, ["", "EN", "OK", "mg Zm9v b", "mg bar"]);
}

#[test]
fn m4_opaque_and_key_are_echoed_on_every_outcome_and_errors_are_never_quiet() {
    expect(&[
        ("mg a O1 k|", "EN O1 ka|"),
        ("md a O2 k|", "NF O2 ka|"),
        ("ma a O3 k|", "NF O3 ka|"),
        ("ms a 1 O4 k MR|x|", "NS O4 ka|"),
        ("ms a 1 O5 k|x|", "HD O5 ka|"),
        ("ms a 1 O6 k C999|x|", "EX O6 ka|"),
        ("md a O7 k C999|", "EX O7 ka|"),
        ("ma a q|", "CLIENT_ERROR cannot increment or decrement non-numeric value|"),
        ("mg a q Tx|", "CLIENT_ERROR bad token in command line format|"),
        ("ms a 1 q|xyz|", "CLIENT_ERROR bad data chunk|CLIENT_ERROR bad command line format|"),
    ]);
}

#[test]
fn m5_quiet_hides_only_the_boring_code() {
    expect(&[
        ("mg a q k|", ""),
        ("ms a 1 q|x|", ""),
        ("mg a q|", "HD|"),
        ("mg a q v|", "VA 1|x|"),
        ("ms a 1 q ME|x|", "NS|"),
        ("ms a 1 q C99|x|", "EX|"),
        ("ms b 1 q C99|x|", "NF|"),
        ("md a q C99|", "EX|"),
        ("md a q|", ""),
        ("md a q|", "NF|"),
        ("ma n q|", "NF|"),
        ("ma n q N0|", "HD|"),
        ("ma n q v|", ""),
        ("ma n q C99|", "EX|"),
        ("mn|", "MN|"),
    ]);
}

#[test]
fn m6_a_given_cas_becomes_the_items_and_is_compared() {
    expect(&[
        ("ms a 1 E777 c|x|", "HD c777|"),
        ("mg a c|", "HD c777|"),
        ("gets a|", "VALUE a 0 1 777|x|END|"),
        ("ms a 1 C776|y|", "EX|"),
        ("ms a 1 C777 E800 c|y|", "HD c800|"),
        ("cas a 0 0 1 777|z|", "EXISTS|"),
        ("md a C777|", "EX|"),
        ("md a I E900|", "HD|"),
        ("mg a c|", "HD c900 X W|"),
        ("md a C900|", "HD|"),
        ("mg v N0 E5 c|", "HD c5 W|"),
        ("ma n N0 E6 c|", "HD c6|"),
        ("ma n E7 c|", "HD c7|"),
        ("ms n 1 MA E8 c|0|", "HD c8|"),
        ("ms n 0 C0||", "EX|"),
    ]);
}

#[test]
fn m6_x1_times_to_live_mean_what_they_mean_elsewhere() {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let shared = shared_with(&clock);
    let say = |input| converse(&shared, input, 1 << 20);
    assert_eq!(say("ms a 1 T30|x|ms b 1 T-1|x|ms c 1 T1700000060|x|ms d 1 T1|x|"), "HD|HD|HD|HD|");
    assert_eq!(say("mg a t|mg b t|mg c t|mg d t|"), "HD t30|EN|HD t60|HD t1|");
    clock.advance_ms(1_000);
    assert_eq!(say("mg a t|mg c t|mg d t|"), "HD t29|HD t59|EN|");
    clock.advance_ms(29_000);
    assert_eq!(say("mg a t|mg c t|"), "EN|HD t30|");
}

#[test]
fn m7_a_noop_is_answered_and_a_debug_line_changes_nothing() {
    let shared = shared();
    let say = |input| converse(&shared, input, 1 << 20);
    assert_eq!(say("mn|ms a 3 T90|abc|"), "MN|HD|");
    let details = shared.cache.details("a").unwrap().unwrap();
    let (class, size) = (details.class + 1, details.bytes);
    let line = |fetch| format!("ME a exp=90 la=0 cas=1 fetch={fetch} cls={class} size={size}|");
    assert_eq!(say("me a|"), line("no"));
    assert_eq!(say("me a|mg a h|"), line("no") + "HD h0|");
    assert_eq!(say("me a|"), line("yes"));
    assert_eq!(say("ms AAEC 1 b|x|"), "HD|");
    assert!(say("me AAEC b|").starts_with("ME AAEC exp=-1 la=0 cas=2 fetch=no cls="));
    assert_eq!(say("me miss|me|"), "EN|CLIENT_ERROR bad command line format|");
}

#[test]
fn d1_a_get_returns_a_value_and_what_is_asked_of_the_item() {
    expect(&[
        ("ms a 3 F5 T90|abc|", "HD|"),
        ("mg a u h|", "HD h0|"),
        ("mg a u T60 h t|", "HD h0 t60|"),
        ("mg a h T90|", "HD h0|"),
        ("mg a h v|", "VA 3 h1|abc|"),
        ("mg a c f k s t O1|", "HD c1 f5 ka s3 t90 O1|"),
        ("ms a 0||", "HD|"),
        ("mg a h v|", "VA 0 h0||"),
    ]);
}

#[test]
fn d1_m7_seconds_since_the_last_access_are_those_before_this_one() {
    let clock = Arc::new(ManualClock::new(1_700_000_000_000));
    let shared = shared_with(&clock);
    let say = |input: &str| {
        let answer = converse(&shared, input, 1 << 20);
        clock.advance_ms(2_000);
        answer
    };
    let la = |key: &str| {
        let line = converse(&shared, &format!("me {key}|"), 1 << 20);
        line.split(' ').find_map(|word| word.strip_prefix("la=")).unwrap().to_owned()
    };
    assert_eq!(say("ms a 1|x|mg a h l t|"), "HD|HD h0 l0 t-1|");
    assert_eq!(say("mg a l h|"), "HD l2 h1|");
    assert_eq!((say("mg a u l|"), say("mg a u l|")), ("HD l2|".into(), "HD l4|".into()), "u is no access");
    assert_eq!((la("a"), la("a")), ("6".into(), "6".into()), "nor is me");
    assert_eq!(say("touch a 100|"), "TOUCHED|");
    assert_eq!(say("mg a T200 u l t|"), "HD l2 t200|");
    assert_eq!(say("mg a T200 l t|"), "HD l4 t200|");
    assert_eq!(say("get a|"), "VALUE a 0 1|x|END|");
    assert_eq!(la("a"), "2");
    // Also whoever wins the token, or makes the item, sees what was before.
    assert_eq!(say("md a I|"), "HD|");
    assert_eq!(say("mg a l|"), "HD l2 X W|");
    assert_eq!(say("mg a l|"), "HD l2 X Z|".replace("X Z", "Z X"));
    assert_eq!(say("mg made l h N30|"), "HD l0 h0 W|");
    assert_eq!(say("mg made l h|"), "HD l2 h1 Z|");
    assert_eq!(say("mg none l h|"), "EN|");
}

#[test]
fn d2_a_value_that_the_client_has_is_withheld() {
    expect(&[
        ("ms a 3 E10|abc|", "HD|"),
        ("mg a v C10 c T60|", "HD c10|"),
        ("mg a v C11 t|", "VA 3 t60|abc|"),
    ]);
}

#[test]
fn d3_the_time_to_live_is_told_before_or_behind_its_change() {
    expect(&[
        ("ms a 1 T90|x|", "HD|"),
        ("mg a T30 t|", "HD t30|"),
        ("mg a t T60|", "HD t30|"),
        ("mg a t T0 v|", "VA 1 t60|x|"),
        ("mg a t c|", "HD t-1 c1|"),
        ("mg miss T60|", "EN|"),
        ("mg a T-1|mg a|", "HD|EN|"),
    ]);
}

#[test]
fn d4_a_miss_makes_an_empty_item_whose_maker_wins() {
    expect(&[
        ("mg a q N30 v t c s f|", "VA 0 t30 c1 s0 f0 W||"),
        ("mg a N30 t|", "HD t30 Z|"),
        ("mg a v|", "VA 0 Z||"),
        ("ms a 2|hi|", "HD|"),
        ("mg a N30 v|", "VA 2|hi|"),
        ("mg b N30 T60 t|", "HD t60 W|"),
        ("mg c N30 R60|", "HD W|"),
    ]);
}

#[test]
fn d5_an_item_that_ends_soon_is_recached_by_one() {
    expect(&[
        ("ms a 2 T20|hi|", "HD|"),
        ("mg a R10|", "HD|"),
        ("mg a R20|", "HD|"),
        ("mg a R30 t c h|", "HD t20 c1 h1 W|"),
        ("mg a R30 v c h|", "VA 2 c1 h1 Z|hi|"),
        ("mg a|", "HD Z|"),
        ("ms a 2|ho|", "HD|"),
        ("mg a R30|", "HD|"),
        ("ms a 2 T20|ho|", "HD|"),
        ("mg a R30 T40 t|", "HD t40 W|"),
    ]);
}

#[test]
fn d6_a_stale_item_is_won_once_until_it_is_stored_again() {
    expect(&[
        ("ms a 2 F4 T90|hi|", "HD|"),
        ("md a I T30|", "HD|"),
        ("mg a v t f h|", "VA 2 t30 f4 h0 X W|hi|"),
        ("mg a v t h|", "VA 2 t30 h1 Z X|hi|"),
        ("mg a N30|", "HD Z X|"),
        ("md a I|", "HD|"),
        ("mg a|", "HD X W|"),
        ("ms a 2|ho|", "HD|"),
        ("mg a v|", "VA 2|ho|"),
    ]);
}

#[test]
fn d7_a_miss_echoes_opaque_and_key_only() {
    expect(&[("mg a v c f h s t O1 k|", "EN O1 ka|")]);
}

#[test]
fn d8_modes_of_a_store() {
    expect(&[
        ("ms a 2 MR|hi|", "NS|"),
        ("ms a 2 MA c s|hi|", "NS c0 s2|"),
        ("ms a 2 MP|hi|", "NS|"),
        ("ms a 2 ME c|hi|", "HD c1|"),
        ("ms a 2 ME|ho|", "NS|"),
        ("ms a 1 MA s|>|", "HD s3|"),
        ("ms a 1 MP|<|", "HD|"),
        ("mg a v|", "VA 4|<hi>|"),
        ("ms a 2 MR F3|ha|", "HD|"),
        ("ms a 1 MA F9 T60|!|", "HD|"),
        ("mg a v f t|", "VA 3 f3 t-1|ha!|"),
        ("ms a 3 MS s k O1|new|", "HD s3 ka O1|"),
        ("ms b 2 MA N60 F7|hi|", "HD|"),
        ("mg b v f t|", "VA 2 f7 t60|hi|"),
        ("ms b 2 MX|mn|mn|", "CLIENT_ERROR invalid mode for ms M token|MN|"),
    ]);
}

#[test]
fn d9_a_store_on_a_condition_and_a_stale_one() {
    expect(&[
        ("ms a 2 C1|hi|", "NF|"),
        ("ms a 2 C1 MR|hi|", "NF|"),
        ("ms a 2 C1 MA|hi|", "NS|"),
        ("ms a 2 C1 ME E50 T90|hi|", "HD|"),
        ("ms a 2 C50 ME|hi|", "NS|"),
        ("ms a 2 C49 c|no|", "EX c0|"),
        ("ms a 2 C49 MA|no|", "EX|"),
        ("ms a 2 C51 I|no|", "EX|"),
        ("ms a 2 C49 I T5 E60|ho|", "HD|"),
        ("mg a v t c|", "VA 2 t90 c60 X W|ho|"),
        ("ms a 2 C59 I E70|hu|", "HD|"),
        ("mg a v|", "VA 2 Z X|hu|"),
        ("ms a 2 C70|ok|", "HD|"),
        ("mg a v t|", "VA 2 t-1|ok|"),
    ]);
}

#[test]
fn c2_d9_0_is_nobodys_cas_and_no_old_one_either() {
    expect(&[("set a 0 0 1|1|", "STORED|"), ("ms a 1 C0 I|2|", "EX|"), ("mg a v|", "VA 1|1|")]);
}

#[test]
fn a3_a_value_that_can_be_no_number_is_told_before_a_wrong_cas() {
    let shared = shared();
    let text = "CLIENT_ERROR cannot increment or decrement non-numeric value|";
    for (bytes, answer) in [(0, text), (1, "EX|"), ((512 << 10) + 1, text)] {
        let set = format!("set a 0 0 {bytes}|{}|", "1".repeat(bytes));
        assert_eq!(converse(&shared, &set, 1 << 20), "STORED|");
        assert_eq!(converse(&shared, "ma a C77|", 1 << 20), answer, "{bytes}");
    }
}

#[test]
fn d10_l5_what_does_not_fit_takes_the_old_item_along_in_any_mode() {
    let big = "x".repeat(2_000_000);
    for mode in ["S", "E", "A", "P", "R"] {
        let input = format!("ms a 2|hi|ms a 2000000 q M{mode}|{big}|mg a|ms b 1|x|");
        let answers = "HD|SERVER_ERROR object too large for cache|EN|HD|";
        assert_eq!(converse(&shared(), &input, 1 << 16), answers, "{mode}");
    }
    // What is sent fits, and with what is there it does not: that stays.
    let half = "x".repeat(600_000);
    for flags in ["MA s", "MP s", "MA N0 s", "MP C0 s", "MP C9 s"] {
        let input = format!("ms a 600000|{half}|ms a 600000 {flags}|{half}|mg a s|");
        let answer = if flags.contains("C9") { "EX" } else { "NS" };
        assert_eq!(
            converse(&shared(), &input, 1 << 16),
            format!("HD|{answer} s600000|HD s600000|"),
            "{flags}"
        );
    }
    for command in ["append", "prepend"] {
        let input = format!("ms a 600000|{half}|{command} a 0 0 600000|{half}|mg a s|");
        assert_eq!(converse(&shared(), &input, 1 << 16), "HD|NOT_STORED|HD s600000|");
    }
    expect(&[
        ("ms a 2|hi|", "HD|"),
        ("ms a 3 q|nope|", "CLIENT_ERROR bad data chunk|CLIENT_ERROR bad command line format|"),
        ("mg a v|", "VA 2|hi|"),
    ]);
}

#[test]
fn d11_a_delete_removes_marks_or_empties() {
    expect(&[
        ("md a|", "NF|"),
        ("ms a 2 E5 F3 T90|hi|", "HD|"),
        ("md a C4|", "EX|"),
        ("md a T10|", "HD|"),
        ("mg a|", "EN|"),
        ("ms a 2 E5 F3 T90|hi|", "HD|"),
        ("md a x|", "HD|"),
        ("mg a v f t c|", "VA 0 f0 t-1 c5||"),
        ("md a x F7 T40 E6|", "HD|"),
        ("mg a v f t c|", "VA 0 f7 t40 c6||"),
        ("ms a 2 T90|hi|", "HD|"),
        ("md a x I T30|", "HD|"),
        ("mg a v t|", "VA 0 t30 X W||"),
        ("ms a 2 E5 F3 T90|hi|", "HD|"),
        ("md a I C5|", "HD|"),
        ("md a I C5|", "EX|"),
        ("mg a f t v|", "VA 2 f3 t90 X W|hi|"),
        ("md b I|", "NF|"),
        ("md b x|", "NF|"),
    ]);
}

#[test]
fn d12_counters() {
    expect(&[
        ("ma n|", "NF|"),
        ("ma n N60 J13 D5 v t|", "VA 2 t60|13|"),
        ("ma n v|", "VA 2|14|"),
        ("ma n D30 MI v|", "VA 2|44|"),
        ("ma n M+|", "HD|"),
        ("ma n MD D36 v|", "VA 1|9|"),
        ("mg n v t|", "VA 2 t60|9 |"),
        ("ma n M- D10 v T90 t|", "VA 1 t90|0|"),
        ("ma n t T30|", "HD t90|"),
        ("ma n D18446744073709551615 v|", "VA 1|0|"),
        ("ma n C99|", "EX|"),
        ("ma n Mx|", "CLIENT_ERROR invalid mode for ma M token|"),
        ("ma n Dx|", "CLIENT_ERROR invalid or duplicate flag|"),
        ("ma n Jx|", "CLIENT_ERROR invalid or duplicate flag|"),
        ("ms n 3 E40 F8|12a|", "HD|"),
        ("ma n c|", "CLIENT_ERROR cannot increment or decrement non-numeric value|"),
        ("ms n 3 E40 F8| 12|", "HD|"),
        ("ma n C40 E41 c k O1 v|", "VA 2 c41 kn O1|13|"),
        ("mg n f v|", "VA 3 f8|13 |"),
        ("ms n 0||", "HD|"),
        ("ma n t|", "CLIENT_ERROR cannot increment or decrement non-numeric value|"),
    ]);
}

#[test]
fn c1_reads_and_touches_keep_the_cas_and_winning_does_too() {
    expect(&[
        ("ms a 1 T20|x|", "HD|"),
        ("mg a c T25|", "HD c1|"),
        ("mg a c R30|", "HD c1 W|"),
        ("gets a|", "VALUE a 0 1 1|x|END|"),
        ("ms a 1 C1|y|", "HD|"),
    ]);
}

#[test]
fn s5_classic_stores_clear_what_meta_commands_marked() {
    for store in ["set a 0 0 1|y|", "replace a 0 0 1|y|", "append a 0 0 0||"] {
        let input = format!("ms a 1|x|md a I|{store}mg a|");
        assert_eq!(talk(&input), "HD|HD|STORED|HD|", "{store}");
    }
}

#[test]
fn d9_d12_c0_compares_nothing_where_ma_counts_and_a_value_grows() {
    expect(&[
        ("ma n C0|", "NF|"),
        ("set n 0 0 1|5|", "STORED|"),
        ("ma n C0|", "HD|"),
        ("ma n q v C0|ma n v C0 q MD D3|mn|", "MN|"),
        ("ma n v c C0|", "VA 1 c5|5|"),
        ("ma n C9|", "EX|"),
        ("ms n 1 C0 MA|7|", "HD|"),
        ("ms n 1 C0 MP I|1|", "HD|"),
        ("ms n 1 C9 MA|7|", "EX|"),
        ("ms absent 1 C0 MA|7|", "NS|"),
        ("mg n v|", "VA 3|157|"),
        // Here 0 is nobody's CAS, as to `cas` (rule C2).
        ("ms n 1 C0|8|", "EX|"),
        ("ms n 1 C0 MR|8|", "EX|"),
        ("md n C0|", "EX|"),
        ("md n C0 I|", "EX|"),
        ("mg n v|", "VA 3|157|"),
    ]);
}

#[test]
fn m5_a_quiet_ma_shows_the_number_that_it_makes() {
    expect(&[
        ("ma a N0 q|ma a N0 q|mn|", "HD|MN|"),
        ("ma b N0 q v t J5 D3|ma b N0 q v|mn|", "VA 1 t-1|5|MN|"),
        ("ma c N60 q k O1 t|", "HD kc O1 t60|"),
        ("ma d N0 q C9|", "HD|"),
    ]);
}

#[test]
fn f8_meta_and_classic_commands_share_a_connection() {
    let input = "set a 1 0 2|hi|mg a v f|ms b 1 q|x|get a b|ma n N0 q|incr n 5|mn|delete b|mg b|bogus|";
    let output = "STORED|VA 2 f1|hi|VALUE a 1 2|hi|VALUE b 0 1|x|END|HD|5|MN|DELETED|EN|ERROR|";
    assert_eq!(talk(input), output);
}

#[test]
fn meta_commands_are_counted() {
    let shared = shared();
    converse(&shared, "ms a 1|x|mg a|mg b|mg a T5|md a|md a|ma n N0|ma n|mn|", 1 << 20);
    let counted = shared.counters.snapshot();
    assert_eq!((counted.cmd_meta, counted.cmd_set, counted.cmd_get, counted.cmd_touch), (9, 1, 2, 1));
    assert_eq!((counted.get_hits, counted.get_misses, counted.touch_hits), (1, 1, 1));
    assert_eq!((counted.delete_hits, counted.delete_misses, counted.incr_hits), (1, 1, 1));
    // As memcached has it: what is made is found by a get, and not counted up.
    converse(&shared, "stats reset|mg v N9|ma w N9|", 1 << 20);
    let counted = shared.counters.snapshot();
    assert_eq!((counted.get_hits, counted.get_misses, counted.incr_hits, counted.incr_misses), (1, 0, 0, 0));
}

#[test]
fn d6_of_many_clients_one_wins() {
    let shared = shared();
    for round in 0..200 {
        converse(&shared, "ms a 1|x|md a I|", 1 << 20);
        let answers: Vec<String> = std::thread::scope(|scope| {
            let clients: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut out = Vec::new();
                        let counters = Default::default();
                        let mut executor = Executor::new(&shared, &counters, 0);
                        let asked = parse_request(b"mg a\r\n", &Limits::default());
                        let step = executor.execute_meta(&asked, b"mg a\r\n", &mut out);
                        assert!(matches!(step, Step::Done { consumed: 6, skip: 0 }), "{step:?}");
                        String::from_utf8(out).unwrap()
                    })
                })
                .collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        let winners = answers.iter().filter(|answer| *answer == "HD X W\r\n").count();
        assert_eq!(winners, 1, "round {round}: {answers:?}");
        assert_eq!(answers.iter().filter(|answer| *answer == "HD Z X\r\n").count(), 3, "{answers:?}");
    }
}

#[test]
fn g8_watchers_and_prefixes_see_meta_commands() {
    let shared = shared();
    converse(&shared, "stats detail on|ms p:a 1|x|mg p:a|mg p:b|md p:a|", 1 << 20);
    assert_eq!(converse(&shared, "stats detail dump|", 1 << 20), "PREFIX p get 2 hit 1 set 1 del 1|END|");
}

#[test]
fn g6_d11_only_what_is_removed_is_a_delete_hit_and_a_miss_with_a_lifetime_is_a_get_miss() {
    let shared = shared();
    let counted = |input: &str| {
        let before = shared.counters.snapshot();
        converse(&shared, input, 1 << 20);
        let after = shared.counters.snapshot();
        let hits = after.delete_hits - before.delete_hits;
        let gets = (after.get_misses - before.get_misses, after.touch_misses - before.touch_misses);
        (hits, after.delete_misses - before.delete_misses, gets)
    };
    assert_eq!(counted("ms a 1 E5|x|md a C4|"), (0, 1, (0, 0)));
    assert_eq!(counted("md a I|"), (0, 0, (0, 0)));
    assert_eq!(counted("md a x|"), (0, 0, (0, 0)));
    assert_eq!(counted("md a|"), (1, 0, (0, 0)));
    assert_eq!(counted("md a|md a I|"), (0, 2, (0, 0)));
    assert_eq!(counted("mg a T30|mg a|"), (0, 0, (2, 0)));
    assert_eq!(counted("gat 0 a|touch a 0|"), (0, 0, (0, 2)));
}

#[test]
fn what_was_done_is_answered_as_done_though_the_node_steps_down_at_that_moment() {
    use hotspare::ReplicationConfig;
    use std::sync::OnceLock;

    for (command, answer) in [
        ("md k I\r\n", "HD\r\n"),
        ("ma k t\r\n", "HD t-1\r\n"),
        ("mg k v\r\n", "VA 1 X W\r\n5\r\n"),
        ("mg new N30\r\n", "HD W\r\n"),
    ] {
        // A listener is called between the write and what comes behind it.
        let steps_down = Arc::new(OnceLock::<Cache>::new());
        let stepping = steps_down.clone();
        let config = Config::new().replication(ReplicationConfig::primary()).on_departure(move |_| {
            if let Some(cache) = stepping.get() {
                cache.follow("127.0.0.1:9", true).unwrap();
            }
        });
        let shared = Shared { cache: Cache::new(config).unwrap(), ..shared() };
        let told = |input: &str| {
            let mut socket = socket(input.as_bytes(), 1000);
            run(&shared, &mut Connection::new(&shared.settings), &mut socket);
            String::from_utf8(socket.output).unwrap()
        };
        assert_eq!(told("set k 0 0 1\r\n5\r\nget k\r\n"), "STORED\r\nVALUE k 0 1\r\n5\r\nEND\r\n");
        if command.starts_with("mg k") {
            assert_eq!(told("md k I q\r\n"), "");
        }
        steps_down.set(shared.cache.clone()).unwrap();
        assert_eq!(told(command), answer, "{command}");
        assert_eq!(shared.cache.get("k").is_err(), !command.contains("new"), "it has stepped down");
    }
}
