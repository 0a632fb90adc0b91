"""The clients' own tests against a running server: `run.py HOTSPARE WORK_FOLDER [NODE_FOLDER]`.

HOTSPARE is the server's binary. The Python clients' sources are downloaded into WORK_FOLDER, in the versions of
`../requirements.txt`, which has to be installed. NODE_FOLDER is where `../package.json` was installed; without it the
node client's tests are left out.

The tests run as they are but for addresses (`Suite.replaced`): a port of theirs may be taken. Whatever is not run is
named here, with the reason; a test that skips itself is a failure if it is not.
"""

import json
import os
import pathlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import time
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
HOST = "127.0.0.1"
START_LIMIT_S = 10
SUITE_LIMIT_S = 120

# Tests that skip themselves, and why that is right.
MAY_SKIP = {
    "test_tls": "pymemcache skips it everywhere: its certificates have run out",
    "over_ipv6": "where the machine has no IPv6",
    "reports_the_ipv6_host": "where the machine has no IPv6",
}

# Tests of node's memcached that are not run: no server takes part in them.
LEFT_OUT_OF_NODE = [
    "should call the callback only once if theres an error",
    "should remove a failed server",
    "should properly schedule failed server retries",
    "should properly schedule server reconnection attempts",
    "should reset failures",
    "should default to port 11211",
    "should not create multiple connections with no port",
    "should return error on connection timeout",
]
# Not run either: pymemcache's unit tests and all tests of memjs, whose servers are mocks, and benchmarks.


class Server:
    """A server of its own: `address` is a port, or a unix socket's path."""

    def __init__(self, binary, work, *words, env=None):
        self.log = work / f"server-{time.monotonic_ns()}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen([binary, "-m", "256", *words], stderr=log, env={**os.environ, **(env or {})})
        deadline = time.monotonic() + START_LIMIT_S
        while not (found := re.search(r"listening for clients on (?:\S*:(\d+)|(/\S+))", self.log.read_text())):
            if self.process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the server does not listen: {self.log.read_text()}")
            time.sleep(0.05)
        self.address = found[1] or found[2]

    def stop(self):
        self.process.terminate()
        self.process.wait(START_LIMIT_S)


def has_ipv6():
    try:
        with socket.socket(socket.AF_INET6) as tried:
            tried.bind(("::1", 0))
        return True
    except OSError:
        return False


def free_port():
    """A port below those that the system gives to outgoing connections, so that it stays free."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as tried:
            try:
                tried.bind((HOST, port))
                return port
            except OSError:
                continue


def source_of(package, work):
    """The unpacked source distribution of `package`, in the version that is installed."""
    pins = (HERE.parent / "requirements.txt").read_text()
    pin = re.search(rf"^{re.escape(package)}==.*$", pins, re.MULTILINE)[0]
    folder = work / package
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:", "-d", folder, pin]
    subprocess.run(command, check=True)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(folder)
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    return source


def replace(files, replaced):
    """Replaces each text in `files`; all have to be there, so that a new version can't pass unnoticed."""
    missing = set(replaced)
    for path in files:
        text = path.read_text()
        missing -= {old for old in replaced if old in text}
        for old, new in replaced.items():
            text = text.replace(old, str(new))
        path.write_text(text)
    if missing:
        sys.exit(f"not in the tests: {missing}")


def pytest_suite(name, folder, arguments, env=None):
    """Runs pytest in `folder` and says how many tests passed and failed."""
    report = folder / "report.xml"
    # Its own command: what the distribution configures asks for plugins and leaves tests out.
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider", f"--junitxml={report}"]
    env = {**os.environ, "MEMCACHED_HOST": HOST, **(env or {})}
    code = subprocess.run([*command, *arguments], cwd=folder, env=env, timeout=SUITE_LIMIT_S).returncode
    cases = xml.etree.ElementTree.parse(report).findall(".//testcase")
    skipped = [case.get("name") for case in cases if case.find("skipped") is not None]
    unexpected = [test for test in skipped if not any(known in test for known in MAY_SKIP)]
    failed = sum(case.find("failure") is not None or case.find("error") is not None for case in cases)
    for test in unexpected:
        print(f"{name}: {test} skipped itself")
    passed = len(cases) - failed - len(skipped)
    return passed, failed + len(unexpected) + (code != 0 and failed == 0)


def pymemcache(binary, work):
    source = source_of("pymemcache", work)
    server = Server(binary, work, "-p", "0")
    try:
        tests = ["pymemcache/test/test_integration.py", "-m", "integration", "--server", HOST, "--port", server.address]
        return pytest_suite("pymemcache", source, tests)
    finally:
        server.stop()


def pylibmc(binary, work):
    source = source_of("pylibmc", work)
    server = Server(binary, work, "-p", "0")
    # What reads a cluster's addresses from the server knows nothing of the variable.
    replace([source / "tests" / "__init__.py"], {'"11211"': f'"{server.address}"'})
    elsewhere = f"elasticache(address='{HOST}:{server.address}')"
    replace([source / "tests" / "test_autoconf.py"], {"elasticache()": elsewhere})
    try:
        return pytest_suite("pylibmc", source, ["tests"], {"MEMCACHED_PORT": server.address})
    finally:
        server.stop()


def binary_memcached(binary, work):
    source = source_of("python-binary-memcached", work)
    tests = source / "test"
    shutil.copy(HERE / "binary_memcached_conftest.py", tests / "conftest.py")
    users = work / "users"
    users.write_text("user:password\n")
    servers = [
        Server(binary, work, "-p", "0"),
        Server(binary, work, "-s", str(work / "memcached.sock")),
        Server(binary, work, "-p", "0"),
        Server(binary, work, "-p", "0", "-S", env={"MEMCACHED_SASL_PWDB": str(users)}),
    ]
    ipv6 = has_ipv6()
    if ipv6:
        servers.append(Server(binary, work, "-p", "0", "-l", "::1"))
    main, unix, second, sasl = (server.address for server in servers[:4])
    # Files that only look at addresses keep them.
    named = ["compression", "error_handling", "errors", "pickler", "raw_data", "simple_functions", "socket"]
    replace(
        [tests / f"test_{name}.py" for name in named],
        {":11211": f":{main}", ":5000": f":{second}", "/tmp/memcached.sock": unix},
    )
    # These talk to a server at the default port before they take no heed of its answers.
    host = 'os.environ["MEMCACHED_HOST"]'
    replace([tests / "test_auth.py"], {f"Protocol({host})": f'Protocol({host} + ":{main}")'})
    # It starts a `memcached` of its own, which is ours by another name, and gives it less time than a busy machine needs.
    replace([tests / "test_tls.py"], {"5001": free_port(), "time.sleep(0.1)": "time.sleep(1)"})
    named_memcached = work / "bin"
    named_memcached.mkdir()
    (named_memcached / "memcached").symlink_to(binary)
    env = {
        "PATH": f"{named_memcached}{os.pathsep}{os.environ['PATH']}",
        "SUITE_SASL_PORT": sasl,
        "SUITE_IPV6_PORT": servers[4].address if ipv6 else "",
    }
    try:
        return pytest_suite("python-binary-memcached", source, ["test"], env)
    finally:
        for server in servers:
            server.stop()


def node_memcached(binary, work, node):
    # Beside the packages, where the tests find them.
    source = node / "node_modules" / "memcached-tested"
    shutil.copytree(node / "node_modules" / "memcached", source)
    servers = [Server(binary, work, "-p", "0") for _ in range(3)]
    ports = {f":{11211 + at}": f":{server.address}" for at, server in enumerate(servers)}
    replace([source / "test" / "common.js"], ports)
    report = work / "mocha.json"
    mocha = node / "node_modules" / "mocha" / "bin" / "mocha.js"
    left_out = "|".join(LEFT_OUT_OF_NODE)
    command = ["node", mocha, "--exit", "--require", "should", "--fail-zero", "--invert", "--grep", left_out]
    command += ["--reporter", "json", "--reporter-option", f"output={report}"]
    tests = sorted((source / "test").glob("*.test.js"))
    env = {**os.environ, "MEMCACHED__HOST": HOST}
    try:
        code = subprocess.run(
            [*command, *tests], cwd=source, env=env, timeout=SUITE_LIMIT_S, stdout=subprocess.DEVNULL
        ).returncode
    finally:
        for server in servers:
            server.stop()
    told = json.loads(report.read_text())
    for failure in told["failures"]:
        print(f"memcached: {failure['fullTitle']}: {failure['err'].get('message')}")
    failed = told["stats"]["failures"] + told["stats"]["pending"]
    return told["stats"]["passes"], failed + (code != 0 and failed == 0)


def main(binary, work, node=None):
    binary, work = pathlib.Path(binary).resolve(), pathlib.Path(work).resolve()
    work.mkdir()
    suites = {"pymemcache": pymemcache, "pylibmc": pylibmc, "python-binary-memcached": binary_memcached}
    if node:
        suites["node's memcached"] = lambda *given: node_memcached(*given, pathlib.Path(node).resolve())
    all_failed = 0
    for name, suite in suites.items():
        began = time.monotonic()
        passed, failed = suite(binary, work)
        print(f"{name}, its own tests ({time.monotonic() - began:.0f} s): {passed} passed, {failed} failed", flush=True)
        all_failed += failed + (passed == 0)
    return 1 if all_failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
