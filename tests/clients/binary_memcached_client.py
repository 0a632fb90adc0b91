"""The python-binary-memcached client against a running server: `binary_memcached_client.py PORT`."""

import sys

import bmemcached


def main(port):
    client = bmemcached.Client([f"127.0.0.1:{port}"], socket_timeout=5)
    assert client.flush_all()

    # Flags: the client keeps the type of a value in them.
    for value in (7, "text", b"bytes", {"a": [1, 2]}):
        assert client.set("typed", value)
        assert client.get("typed") == value and type(client.get("typed")) is type(value)
    assert client.get("missing") is None

    client.set_multi({f"m{n}": n for n in range(100)})
    assert client.get_multi([f"m{n}" for n in range(101)]) == {f"m{n}": n for n in range(100)}
    assert client.delete_multi(["m1", "m2"])
    assert client.get("m1") is None and client.get("m3") == 3

    assert client.add("new", "a")
    assert not client.add("new", "b")
    assert client.replace("new", "c")
    assert not client.replace("absent", "c")
    assert client.get("new") == "c"

    value, token = client.gets("new")
    assert value == "c"
    assert client.cas("new", "d", token)
    assert not client.cas("new", "e", token)
    assert client.get("new") == "d"

    assert client.incr("n", 5, default=40) == 40, "an absent counter begins with its default"
    assert client.incr("n", 5) == 45
    assert client.decr("n", 100) == 0

    large = bytes(range(256)) * 4000
    assert client.set("large", large, compress_level=0)
    assert client.get("large") == large
    try:
        client.set("large", b"x" * (1 << 20), compress_level=0)
        raise AssertionError("a value of 1 MiB was taken")
    except bmemcached.exceptions.MemcachedException as error:
        assert error.code == 3, error
    assert client.get("large") is None, "a stale value survived a set that failed"

    assert client.delete("new")
    assert client.get("new") is None
    (stats,) = client.stats().values()
    assert int(stats["cmd_set"]) > 0 and stats["version"]
    client.disconnect_all()


if __name__ == "__main__":
    main(int(sys.argv[1]))
    print("python-binary-memcached: 1 passed, 0 failed")
