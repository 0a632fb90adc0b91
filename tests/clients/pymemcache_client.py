"""The pymemcache client against a running server: `pymemcache_client.py PORT`."""

import sys
import time

from pymemcache.client.base import Client


def main(port):
    client = Client(("127.0.0.1", port), timeout=5, connect_timeout=5, default_noreply=False)
    badval_before = int(client.stats()[b"cas_badval"])
    assert client.flush_all()
    assert client.version()

    assert client.set("a", b"1", flags=77)
    assert client.get("a") == b"1"
    assert client.raw_command("get a", end_tokens="END\r\n").startswith(b"VALUE a 77 1\r\n")
    assert client.get("missing") is None

    assert client.set_many({f"m{n}": str(n).encode() for n in range(100)}) == []
    found = client.get_many([f"m{n}" for n in range(101)])
    assert found == {f"m{n}": str(n).encode() for n in range(100)}

    assert not client.add("a", b"2")
    assert client.add("new", b"2")
    assert client.replace("new", b"b")
    assert not client.replace("missing", b"b")
    assert client.append("new", b"c")
    assert client.prepend("new", b"a")
    assert client.get("new") == b"abc"

    value, token = client.gets("new")
    assert value == b"abc"
    assert client.cas("new", b"x", token) is True
    assert client.cas("new", b"y", token) is False
    assert client.cas("missing", b"y", token) is None
    assert client.get("new") == b"x"

    assert client.set("n", b"41")
    assert client.incr("n", 1) == 42
    assert client.decr("n", 100) == 0
    assert client.incr("missing", 1) is None

    assert client.touch("n", 100)
    assert not client.touch("missing", 100)
    assert client.raw_command("gat 100 n", end_tokens="END\r\n").startswith(b"VALUE n 0 ")
    assert client.raw_command("gats 100 n", end_tokens="END\r\n").startswith(b"VALUE n 0 ")

    assert client.set("short", b"x", expire=1)
    deadline = time.monotonic() + 5
    while client.get("short") is not None:
        assert time.monotonic() < deadline, "an item outlived its second"
        time.sleep(0.05)
    assert client.set("past", b"x", expire=-1)
    assert client.get("past") is None

    large = bytes(range(256)) * 4000
    assert client.set("large", large)
    assert client.get("large") == large
    try:
        client.set("large", b"x" * (1 << 20))
        raise AssertionError("a value of 1 MiB was taken")
    except Exception as error:  # pymemcache raises its own class for SERVER_ERROR
        assert "too large" in str(error), error
    assert client.get("large") is None, "a stale value survived a set that failed"

    client.set("quiet", b"1", noreply=True)
    client.delete("a", noreply=True)
    assert client.get("quiet") == b"1"
    assert client.get("a") is None
    assert client.delete("quiet")
    assert not client.delete("quiet")

    stats = client.stats()
    for name in (b"cmd_get", b"cmd_set", b"get_hits", b"get_misses", b"evictions", b"curr_items"):
        assert int(stats[name]) >= 0, name
    # Other clients may have used this server before.
    assert int(stats[b"cas_badval"]) == badval_before + 1
    client.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
    print("pymemcache: 1 passed, 0 failed")
