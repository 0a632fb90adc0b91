"""Two machines, a client and a switch as Linux network namespaces, set up as server-bin/deploy says.

Lives here: namespaces, processes, faults, looking at them. Not here: what must hold (see field.py).
"""

import json
import os
import shlex
import signal
import subprocess
import sys
import time

DEPLOY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../server-bin/deploy")
VIRTUAL = "192.0.2.10"
ADDRESSES = ("192.0.2.11", "192.0.2.12")
CLIENT = "192.0.2.100"
NOBODY = "02:00:00:00:00:99"
START_LIMIT_S = 20


def run(*command, check=True):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def wait_until(what, limit_s, probe):
    end = time.monotonic() + limit_s
    while not probe():
        assert time.monotonic() < end, f"waited {limit_s} s in vain: {what}"
        time.sleep(0.05)


class Machine:
    """A namespace with a node, its keepalived, and the helper between them."""

    def __init__(self, cluster, number):
        self.cluster, self.number, self.name = cluster, number, "ab"[number]
        self.space, self.address = f"{cluster.prefix}{self.name}", ADDRESSES[number]
        self.other = ADDRESSES[1 - number]
        self.folder = os.path.join(cluster.folder, self.name)
        os.mkdir(self.folder)
        self.fifo = os.path.join(self.folder, "fifo")
        self.node = self.helper = self.keepalived = None

    def fit(self, text):
        """An example of deploy/ for this machine: the first one's, or with what differs."""
        if self.number == 1:
            text = text.replace(ADDRESSES[0], "\0").replace(ADDRESSES[1], ADDRESSES[0])
            text = text.replace("\0", ADDRESSES[1]).replace("cache-1", "cache-2")
            text = text.replace("priority 101", "priority 100").replace("--node-slot 0", "--node-slot 1")
        return text

    def environment(self):
        with open(os.path.join(DEPLOY, "hotspare.env")) as file:
            lines = [line for line in self.fit(file.read()).splitlines() if line and line[0] != "#"]
        return {name: shlex.split(value)[0] for name, _, value in (line.partition("=") for line in lines)}

    def spawn(self, name, *command):
        with open(os.path.join(self.folder, f"{name}.log"), "a") as log:
            child = subprocess.Popen(
                ["ip", "netns", "exec", self.space, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.cluster.children.append(child)
        return child

    def start_node(self):
        options = self.environment()
        words = (options["HOTSPARE_OPTIONS"] + " " + options["HOTSPARE_GROUP_OPTIONS"]).split()
        words[words.index("-m") + 1] = "64"
        self.node = self.spawn(
            "node", self.cluster.binary, *words, "--replication-secret-file", self.cluster.secret
        )
        wait_until(f"node {self.name} to answer", START_LIMIT_S, lambda: self.status() is not None)

    def start_helper(self):
        other = self.environment()["HOTSPARE_OTHER"]
        admin = ["--admin", "127.0.0.1:11280", "--instance", "hotspare"]
        self.helper = self.spawn("helper", self.cluster.binary, "keepalived", "--fifo", self.fifo, *admin, "--other", other)

    def stop_helper(self):
        self.helper.terminate()
        self.helper.wait()

    def hand_over(self):
        command = [self.cluster.binary, "handover", "--admin", "127.0.0.1:11280"]
        return run("ip", "netns", "exec", self.space, *command)

    def start_keepalived(self):
        with open(os.path.join(DEPLOY, "keepalived.conf")) as file:
            text = self.fit(file.read())
        # The test's files lie where others may write, and its only user is root.
        text = text.replace("enable_script_security", "").replace("script_user hotspare", "script_user root")
        text = text.replace("/run/hotspare-vrrp.fifo hotspare", self.fifo)
        text = text.replace("/usr/bin/hotspare", self.cluster.binary)
        path = os.path.join(self.folder, "keepalived.conf")
        with open(path, "w") as file:
            file.write(text)
        pids = [os.path.join(self.folder, name) for name in ("keepalived.pid", "vrrp.pid")]
        self.keepalived = self.spawn("keepalived", "keepalived", "-n", "-l", "-D", "-P", "-f", path, "-p", pids[0], "-r", pids[1])

    def stop_keepalived(self, which):
        """With its child, which does the work."""
        for child in run("pgrep", "-P", str(self.keepalived.pid)).stdout.split():
            os.kill(int(child), which)
        self.keepalived.send_signal(which)
        self.keepalived.wait()

    def status(self):
        command = [self.cluster.binary, "status", "--json", "--admin", "127.0.0.1:11280"]
        done = run("ip", "netns", "exec", self.space, *command, check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def role(self):
        return (self.status() or {}).get("role")

    def has_virtual(self):
        return VIRTUAL in run("ip", "-n", self.space, "-o", "addr", "show", "dev", "eth0").stdout

    def is_level_with(self, primary):
        """Whether it holds all that the primary holds, at rest."""
        ours, theirs = self.status(), primary.status()
        return bool(
            ours and theirs and theirs["role"] == "primary" and ours["link"] == "streaming"
            and ours["promotable"] and [replica["lag_seqs"] for replica in theirs["replicas"]] == [0]
        )

    def items(self):
        ask = ["ip", "netns", "exec", self.space, sys.executable, "-c", ASK_ITEMS, self.address]
        return int(run(*ask).stdout)

    def signal(self, which):
        self.node.send_signal(which)

    def kill(self):
        self.signal(signal.SIGKILL)
        self.node.wait()

    def restart(self):
        """As systemd does it: SIGTERM, then at once anew."""
        self.signal(signal.SIGTERM)
        self.node.wait()
        self.start_node()

    def set_link(self, state):
        """The cable, pulled out at the switch."""
        run("ip", "-n", self.cluster.switch, "link", "set", f"to-{self.name}", state)

    def cut_replication_towards_other(self, is_cut):
        """What this machine's node sends to the other vanishes; the other way all goes on.

        keepalived does not notice: a socket that is bound to an interface takes a blackhole for a mistake in the routes,
        and sends on the link all the same.
        """
        run("ip", "-n", self.space, "route", "add" if is_cut else "del", "blackhole", f"{self.other}/32")

    def cut_towards_other(self, is_cut):
        """All that this machine sends to the other goes to a hardware address that nobody has."""
        act = ["replace", self.other, "lladdr", NOBODY, "nud", "permanent"] if is_cut else ["del", self.other]
        run("ip", "-n", self.space, "neigh", *act, "dev", "eth0")

    def log(self, name):
        with open(os.path.join(self.folder, f"{name}.log")) as file:
            return file.read()


ASK_ITEMS = """
import sys
from pymemcache.client.base import Client
print(Client((sys.argv[1], 11211), timeout=2).stats()[b"curr_items"])
"""


class Cluster:
    """Leaves nothing behind when it is left."""

    def __init__(self, binary, folder):
        self.binary, self.folder = os.path.abspath(binary), folder
        self.prefix = f"hs{os.getpid()}"
        self.switch = f"{self.prefix}s"
        self.client_space = f"{self.prefix}c"
        self.spaces, self.children = [], []
        self.secret = os.path.join(folder, "secret")
        with open(self.secret, "w") as file:
            file.write("of the field test\n")
        self.machines = [Machine(self, number) for number in (0, 1)]
        self.notes = os.path.join(folder, "client.tsv")

    def __enter__(self):
        try:
            self.add_space(self.switch)
            run("ip", "-n", self.switch, "link", "add", "bridge", "type", "bridge", "forward_delay", "0")
            run("ip", "-n", self.switch, "link", "set", "bridge", "up")
            for machine in self.machines:
                self.plug(machine.space, f"to-{machine.name}", machine.address)
            self.plug(self.client_space, "to-client", CLIENT)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            # A stopped process obeys nothing else.
            child.kill() if child.poll() is None and child in [m.node for m in self.machines] else child.terminate()
        for child in self.children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for space in self.spaces:
            run("ip", "netns", "del", space, check=False)

    def add_space(self, space):
        run("ip", "netns", "add", space)
        self.spaces.append(space)
        run("ip", "-n", space, "link", "set", "lo", "up")

    def plug(self, space, port, address):
        self.add_space(space)
        run("ip", "-n", self.switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space)
        run("ip", "-n", self.switch, "link", "set", port, "master", "bridge", "up")
        run("ip", "-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
        run("ip", "-n", space, "link", "set", "eth0", "up")

    def start(self):
        """The recipe of README.md, and a client."""
        for machine in self.machines:
            machine.start_node()
            machine.start_helper()
        first, second = self.machines
        run("ip", "netns", "exec", first.space, self.binary, "promote", "--admin", "127.0.0.1:11280")
        wait_until("a level spare", START_LIMIT_S, lambda: second.is_level_with(first))
        first.start_keepalived()
        wait_until("the virtual address", START_LIMIT_S, first.has_virtual)
        second.start_keepalived()
        client = os.path.join(os.path.dirname(os.path.abspath(__file__)), "client.py")
        command = [sys.executable, client, self.notes, VIRTUAL, *ADDRESSES]
        with open(os.path.join(self.folder, "client.log"), "w") as log:
            self.client = subprocess.Popen(["ip", "netns", "exec", self.client_space, *command], stderr=log)
        self.children.append(self.client)
        wait_until("the client", START_LIMIT_S, self.client_is_ready)

    def client_is_ready(self):
        assert self.client.poll() is None, "the client ended, see client.log"
        return os.path.exists(self.notes) and "ready" in open(self.notes).read()

    def primary_and_spare(self):
        """By who has the virtual address."""
        holders = [machine.has_virtual() for machine in self.machines]
        assert sum(holders) == 1, f"{sum(holders)} machines have the virtual address"
        holder = self.machines[holders.index(True)]
        return holder, self.machines[1 - holder.number]

    def has_converged(self):
        """One primary, with the virtual address; the other streams from it and may be promoted."""
        holders = [machine for machine in self.machines if machine.has_virtual()]
        if len(holders) != 1:
            return False
        primary, spare = holders[0], self.machines[1 - holders[0].number]
        ours, theirs = spare.status(), primary.status()
        return bool(
            ours and theirs and theirs["role"] == "primary" and ours["role"] == "replica"
            and ours["link"] == "streaming" and ours["promotable"] and ours["term"] == theirs["term"]
        )
