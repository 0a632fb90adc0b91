"""The pylibmc client (libmemcached) against a running server: `pylibmc_client.py PORT`."""

import sys

import pylibmc


def commands(client):
    client.flush_all()
    assert client.set("a", b"1")
    assert client.get("a") == b"1"
    assert client.get("missing") is None
    assert client.set_multi({f"m{n}": n for n in range(100)}) == []
    assert client.get_multi([f"m{n}" for n in range(101)]) == {f"m{n}": n for n in range(100)}

    assert not client.add("a", b"2")
    assert client.add("new", b"b")
    assert client.append("new", b"c")
    assert client.prepend("new", b"a")
    assert client.get("new") == b"abc"
    assert client.replace("new", b"d")
    assert not client.replace("missing", b"d")

    # Flags: the client keeps the type of a value in them.
    for value in (7, "text", b"bytes", {"a": [1, 2]}):
        assert client.set("typed", value)
        assert client.get("typed") == value and type(client.get("typed")) is type(value)

    client.set("n", 41)
    assert client.incr("n", 1) == 42
    assert client.decr("n", 2) == 40
    assert client.touch("n", 100)
    assert not client.touch("missing", 100)
    assert client.set("past", b"x", time=2592001)
    assert client.get("past") is None

    large = bytes(range(256)) * 4000
    assert client.set("large", large)
    assert client.get("large") == large
    assert client.delete("large")
    assert not client.delete("large")
    (_, stats), = client.get_stats()
    assert int(stats["cmd_set"]) > 0 and stats["version"]


def compare_and_swap(client):
    assert client.set("c", b"1")
    value, token = client.gets("c")
    assert value == b"1"
    assert client.cas("c", b"2", token)
    assert not client.cas("c", b"3", token)
    assert client.get("c") == b"2"


def main(port):
    address = [f"127.0.0.1:{port}"]
    behaviors = {"cas": True, "tcp_nodelay": True, "receive_timeout": 5_000_000}
    client = pylibmc.Client(address, binary=False, behaviors=behaviors)
    commands(client)
    compare_and_swap(client)


if __name__ == "__main__":
    main(int(sys.argv[1]))
    print("pylibmc: 1 passed, 0 failed")
