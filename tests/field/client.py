"""A stock client that talks to the virtual address all the while, and writes down each answer.

    client.py OUTPUT VIRTUAL_ADDRESS NODE_ADDRESS...        (port 11211)

Lines of OUTPUT, tab separated, times in seconds of CLOCK_MONOTONIC:
    ready
    w BEGUN ENDED KEY VALUE OUTCOME     a write of a counter: ok, or what went wrong
    r BEGUN ENDED KEY VALUE             a read of a counter: its value, or -1 for a miss; no line if it failed
    h ENDED HITS ASKED                  reads of items that were all written once, at the beginning
    d BEGUN ENDED NODE                  a write that a node acknowledged at its own address
"""

import random
import sys
import threading
import time

from pymemcache.client.base import Client

PORT = 11211
LIMIT_S = 0.4
ITEMS = 20000
COUNTERS = 200
PAUSE_S = 0.002
NODE_PAUSE_S = 0.02


def client(address):
    return Client((address, PORT), connect_timeout=LIMIT_S, timeout=LIMIT_S, no_delay=True)


class Notes:
    def __init__(self, path):
        self.file = open(path, "w", buffering=1)
        self.lock = threading.Lock()

    def put(self, *fields):
        with self.lock:
            self.file.write("\t".join(str(field) for field in fields) + "\n")


def fill(cache):
    for first in range(0, ITEMS, 500):
        failed = cache.set_many({f"item-{i}": f"{i:0100d}" for i in range(first, first + 500)}, noreply=False)
        assert not failed, failed


def write(address, notes):
    cache, value = client(address), 0
    while True:
        value += 1
        key = f"counter-{value % COUNTERS}"
        begun = time.monotonic()
        try:
            outcome = "ok" if cache.set(key, value, noreply=False) else "not stored"
        except Exception as why:
            outcome = f"{type(why).__name__}: {why}".replace("\t", " ").replace("\n", " ")
        notes.put("w", begun, time.monotonic(), key, value, outcome)
        time.sleep(PAUSE_S)


def read(address, notes):
    cache, number = client(address), 0
    while True:
        number += 1
        key = f"counter-{number % COUNTERS}"
        begun = time.monotonic()
        try:
            value = cache.get(key)
            notes.put("r", begun, time.monotonic(), key, -1 if value is None else int(value))
        except Exception:
            pass
        time.sleep(PAUSE_S)


def probe(address, notes):
    cache = client(address)
    while True:
        keys = [f"item-{random.randrange(ITEMS)}" for _ in range(20)]
        try:
            found = cache.get_many(keys)
            assert all(int(value) == int(key[5:]) for key, value in found.items()), "a wrong value"
            notes.put("h", time.monotonic(), len(found), len(set(keys)))
        except AssertionError:
            raise
        except Exception:
            pass
        time.sleep(PAUSE_S)


def ask_node(address, notes):
    cache = client(address)
    while True:
        begun = time.monotonic()
        try:
            if cache.set(f"probe-{address}", "x", noreply=False):
                notes.put("d", begun, time.monotonic(), address)
        except Exception:
            pass
        time.sleep(NODE_PAUSE_S)


def main():
    path, address, *nodes = sys.argv[1:]
    notes = Notes(path)
    fill(client(address))
    jobs = [(write, address), (read, address), (probe, address)] + [(ask_node, node) for node in nodes]
    threads = [threading.Thread(target=job, args=(at, notes), daemon=True) for job, at in jobs]
    for thread in threads:
        thread.start()
    notes.put("ready")
    # Until it is killed; a thread that ends has met what it must never meet.
    while all(thread.is_alive() for thread in threads):
        time.sleep(0.1)
    sys.exit(1)


main()
