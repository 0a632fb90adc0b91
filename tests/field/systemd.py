#!/usr/bin/env python3
"""The units of server-bin/deploy under a real systemd: as the process 1 of namespaces of its own, so that nothing outside
of them is touched.

    systemd.py BINARY

First `systemd-analyze verify` and `security`; then a start with every line of hardening in force, a promotion, a set and a
get, kill -9, SIGSTOP until the watchdog ends it, a reload, a stop. What this machine does not allow is skipped, and it says
why. It calls itself again inside of the namespaces (`--inside`).
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

DEPLOY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "server-bin", "deploy")
UNITS = ("hotspare.service", "hotspare-keepalived.service")
# What `systemd-analyze security` may rate a unit at most: 0 is shut off from everything, 10 from nothing.
EXPOSURE_MAX = {"hotspare.service": 1.5, "hotspare-keepalived.service": 2.0}
SYSTEMD = "/lib/systemd/systemd"
WATCHDOG_S = 3
LOG = "/run/hotspare.log"
LIMIT_S = 30


def run(*command, check=True):
    """What a command says, on either stream."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S)
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}: {done.stdout}")
    return done.stdout


def wait_for(what, found):
    until = time.monotonic() + LIMIT_S
    while time.monotonic() < until:
        value = found()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"no {what} within {LIMIT_S} s")


def lay_over(folder):
    """Makes a folder one that can be changed, for these namespaces alone."""
    scratch = tempfile.mkdtemp(dir="/run")
    os.makedirs(f"{scratch}/upper")
    os.makedirs(f"{scratch}/work")
    layers = f"lowerdir={folder},upperdir={scratch}/upper,workdir={scratch}/work"
    run("mount", "-t", "overlay", "overlay", "-o", layers, folder)


def install(binary):
    """What the README of the units says, in these namespaces."""
    for folder in ("/etc", "/usr/bin"):
        lay_over(folder)
    shutil.copy(binary, "/usr/bin/hotspare")
    os.chmod("/usr/bin/hotspare", 0o755)
    run("useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "hotspare")
    os.makedirs("/etc/hotspare")
    shutil.copy(os.path.join(DEPLOY, "hotspare.env"), "/etc/hotspare/")
    with open("/etc/hotspare/replication-secret", "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write(os.urandom(32).hex())
    for unit in UNITS:
        shutil.copy(os.path.join(DEPLOY, unit), "/etc/systemd/system/")
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "add", "192.0.2.11/24", "dev", "lo")


def analyze():
    said = run("systemd-analyze", "verify", *(f"/etc/systemd/system/{unit}" for unit in UNITS))
    assert not said.strip(), said
    for unit in UNITS:
        said = run("systemd-analyze", "security", "--offline=true", "--no-pager", f"/etc/systemd/system/{unit}")
        exposure = float(re.search(r"exposure level for \S+: ([0-9.]+)", said).group(1))
        assert exposure <= EXPOSURE_MAX[unit], said
        print(f"{unit}: verified, exposure {exposure}", flush=True)


def boot():
    """Becomes systemd, with a target of ours instead of the machine's."""
    os.makedirs("/run/systemd/system/hotspare.service.d", exist_ok=True)
    with open("/run/systemd/system/nothing.target", "w") as file:
        file.write("[Unit]\nDefaultDependencies=no\nAllowIsolate=yes\n")
    # Half a minute is long for a test; there is neither a network to wait for here nor a journal.
    with open("/run/systemd/system/hotspare.service.d/test.conf", "w") as file:
        own = f"WatchdogSec={WATCHDOG_S}\nStandardError=append:{LOG}\n"
        file.write(f"[Unit]\nDefaultDependencies=no\n[Service]\n{own}")
    os.environ["container"] = "other"
    os.execv(SYSTEMD, [SYSTEMD, "--system", "--unit=nothing.target", "--log-target=console", "--show-status=no"])


def inside(binary):
    run("mount", "--make-rprivate", "/")
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    run("mount", "-t", "proc", "proc", "/proc")
    install(binary)
    # As on a machine that systemd has booted; credentials reach a unit by it.
    run("mount", "--make-rshared", "/")
    analyze()
    sys.stdout.flush()
    boot()


class Machine:
    """systemd in its namespaces, from outside."""

    def __init__(self, process):
        # The child of `unshare` is their process 1.
        children = f"/proc/{process.pid}/task/{process.pid}/children"
        self.pid = wait_for("child of unshare", lambda: open(children).read().split())[0]

    def run(self, *command, check=True):
        return run("nsenter", "--all", "--target", self.pid, *command, check=check)

    def shows(self, name):
        return self.run("systemctl", "show", "--value", "-p", name, "hotspare.service").strip()

    def main_pid(self):
        """The node's number in these namespaces, once the unit is active."""
        # By one question: between two of them the process may end, and its number be 0.
        shown = self.run("systemctl", "show", "-p", "ActiveState", "-p", "MainPID", "hotspare.service")
        values = dict(line.split("=", 1) for line in shown.splitlines())
        return values["MainPID"] if values["ActiveState"] == "active" and values["MainPID"] != "0" else None

    def new_pid(self, *former):
        """The number of a main process that is none of the former ones, or None."""
        pid = self.main_pid()
        return None if pid in former else pid

    def asks(self, request):
        program = (
            "import socket, sys; s = socket.create_connection(('127.0.0.1', 11211), 5); s.settimeout(5); "
            "s.sendall(sys.argv[1].encode().decode('unicode_escape').encode()); print(s.recv(4096))"
        )
        return self.run(sys.executable, "-c", program, request)


def check_hardening(machine, pid):
    status = dict(line.split(":\t", 1) for line in machine.run("cat", f"/proc/{pid}/status").splitlines() if ":\t" in line)
    expected = {"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0000000000000000", "CapEff": "0000000000000000"}
    found = {name: status.get(name) for name in expected}
    assert found == expected, found
    assert status["Uid"].split()[0] != "0", status["Uid"]


def check_unit(machine):
    machine.run("systemctl", "start", "hotspare.service")
    first = machine.main_pid()
    assert first, "systemctl start returned before the node was ready"
    check_hardening(machine, first)
    print("started, hardened, READY=1 heard", flush=True)
    machine.run("hotspare", "promote")
    said = machine.asks(r"set k 0 0 1\r\nv\r\nget k\r\n")
    assert "STORED" in said, said
    machine.run("systemctl", "reload", "hotspare.service")
    assert machine.main_pid() == first, "a reload is no restart"
    time.sleep(WATCHDOG_S + 1)
    assert machine.main_pid() == first, "the watchdog ended a node that lives"
    machine.run("kill", "-KILL", first)
    second = wait_for("restart after kill -9", lambda: machine.new_pid(first))
    print("restarted after kill -9", flush=True)
    machine.run("kill", "-STOP", second)
    third = wait_for("restart by the watchdog", lambda: machine.new_pid(first, second))
    assert machine.shows("NRestarts") == "2", machine.shows("NRestarts")
    print("restarted by the watchdog after SIGSTOP", flush=True)
    machine.run("systemctl", "stop", "hotspare.service")
    assert (machine.shows("ActiveState"), machine.shows("Result")) == ("inactive", "success"), third
    print("stopped", flush=True)


def missing():
    """Why this machine can't run it, if it can't."""
    if os.geteuid() != 0:
        return "only root makes namespaces"
    for program in (SYSTEMD, "systemd-analyze", "systemctl", "unshare", "nsenter", "ip", "useradd"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    probe = subprocess.run(
        ["unshare", "--mount", "--pid", "--fork", "sh", "-c",
         "mount -t tmpfs t /run && mkdir /run/u /run/w && mount -t overlay o -o lowerdir=/etc,upperdir=/run/u,workdir=/run/w /etc"],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )
    return f"no namespaces or overlays here: {probe.stderr.strip()}" if probe.returncode else None


def main():
    if sys.argv[1] == "--inside":
        return inside(sys.argv[2])
    reason = missing()
    if reason:
        print(f"skipped: {reason}")
        return 0
    own = [sys.executable, os.path.abspath(__file__), "--inside", os.path.abspath(sys.argv[1])]
    spaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount", "--net", "--uts", "--ipc", "--cgroup"]
    process = subprocess.Popen(spaces + own)
    try:
        machine = Machine(process)
        is_up = lambda: process.poll() is not None or "nothing.target" in machine.run("systemctl", "list-units", check=False)
        wait_for("systemd", is_up)
        if process.poll() is not None:
            print("failed before systemd began")
            return 1
        try:
            check_unit(machine)
        except AssertionError:
            print(machine.run("systemctl", "status", "--no-pager", "hotspare.service", check=False))
            print(machine.run("tail", "-n", "20", LOG, check=False))
            raise
    finally:
        process.kill()
        process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
