//! The differential test's own parts.

use super::*;

#[test]
fn a_seed_says_the_same_again_and_another_one_does_not() {
    for (_, dialect) in Dialect::ALL {
        assert_eq!(conversation(dialect, 1, 2), conversation(dialect, 1, 2));
        assert_ne!(conversation(dialect, 1, 2), conversation(dialect, 1, 3));
        assert_ne!(conversation(dialect, 1, 2), conversation(dialect, 2, 2));
    }
}

#[test]
fn t5_what_may_differ_is_masked_and_nothing_else() {
    let masked = |text: &str| mask::mask(Dialect::Meta, text.replace('|', "\r\n").as_bytes());
    assert_eq!(masked("VALUE k 5 2 77|c9|END|"), "VALUE k 5 2 *\nc9\\r\\n\nEND\n");
    assert_eq!(masked("HD c77 t498 l3 s4 h1 kc9 Ot7|"), "HD c* t500 l* s4 h1 kc9 Ot7\n");
    assert_eq!(masked("VA 4 c0 t-1 c5|c123|"), "VA 4 c0 t-1 c5\nc123\\r\\n\n");
    assert_eq!(
        masked("ME k exp=-1 la=7 cas=77 fetch=no cls=1 size=63|"),
        "ME k exp=-1 la=* cas=* fetch=no cls=* size=*\n"
    );
    assert_eq!(masked("HD l1795295705|"), "HD l1795295705\n", "a moment in the place of an age is told");
    assert_eq!(masked("NOT_FOUND|12|"), "NOT_FOUND\n12\n");
    assert_ne!(masked("END|"), masked("END\n"));
}

#[test]
fn t5_packets_are_masked_by_field() {
    let mut packet = vec![0x81, 0, 0, 1, 4, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 3];
    packet.extend_from_slice(b"\0\0\0\x05kvv");
    let first = mask::mask(Dialect::Binary, &packet);
    packet[23] = 4;
    assert_eq!(mask::mask(Dialect::Binary, &packet), first);
    packet[23] = 0;
    assert_ne!(mask::mask(Dialect::Binary, &packet), first, "no CAS is not some CAS");
    packet[29] = b'w';
    assert!(mask::mask(Dialect::Binary, &packet).ends_with("key=k value=wv\n"));
}
