"""Fail-over in the field: real keepalived, two machines (network namespaces), a stock client at the virtual address.

    field.py HOTSPARE_BINARY [SCENARIO...]

Needs root, keepalived, `ip netns`, and pymemcache. Each scenario says what it found and is one check:
- the virtual address serves again within a stated time, and goes on serving;
- the items are there: the ratio of hits is what it was;
- no read shows less than an acknowledged write, but where the write was lost in the window that asynchronous
  replication states: acknowledged by a node that no longer reigned by the end, at most `AT_RISK_S` before the fault, or
  (where the old primary lives on) before the other one was promoted, or (where nobody can tell it) before it gave up; and
  no read shows what was never written;
- both nodes do not acknowledge at once for longer than stated, which is seen at their own addresses;
- both converge again.
"""

import bisect
import collections
import os
import shutil
import signal
import sys
import tempfile
import time

from cluster import ADDRESSES, Cluster, wait_until

# A write may be acknowledged so long before a fault and still not have reached the spare.
AT_RISK_S = 0.5
CONVERGE_LIMIT_S = 30
HIT_RATIO_MIN = 0.999
# As client.py has it.
COUNTERS = 200
# The client's own waits, twice: a request under way when the fault comes, and one more.
CLIENT_S = 0.8
# interval 1 s, timeout 1 s, fall 2: a dead node is noticed in 2 s, one that hangs in 4; then keepalived hands over (up to 0.9 s).
DEAD_LIMIT_S = 2 + 0.9 + CLIENT_S + 0.5
HANGING_LIMIT_S = 4 + 0.9 + CLIENT_S + 0.5
# Three advertisements missed (1.5 s and 0.6 s), then a promotion.
UNHEARD_LIMIT_S = 2.1 + CLIENT_S + 1.0
# Both believe to be master until the one that hears the other has heard it for 3 s and looks at its node again.
CONTEST_LIMIT_S = 3 + 0.5 + 0.25 + 1.25
# Meanwhile the old one may lead clients back once, until the new one tells the network again (garp_master_refresh).
LED_BACK_LIMIT_S = 5 + CLIENT_S + 0.5


class Notes:
    """What the client wrote down, since the scenario began."""

    def __init__(self, path):
        self.file = open(path)
        self.writes, self.reads, self.hits, self.acks = [], [], [], []

    def begin(self):
        self.take()
        # The last write of each counter stays: reads of the next scenario may show it.
        self.writes = self.writes[-2 * COUNTERS:]
        self.reads, self.hits, self.acks = [], [], []

    def take(self):
        while True:
            at = self.file.tell()
            line = self.file.readline()
            if not line.endswith("\n"):
                self.file.seek(at)
                return
            kind, *fields = line.rstrip("\n").split("\t")
            if kind == "w":
                self.writes.append((float(fields[0]), float(fields[1]), fields[2], int(fields[3]), fields[4]))
            elif kind == "r":
                self.reads.append((float(fields[0]), float(fields[1]), fields[2], int(fields[3])))
            elif kind == "h":
                self.hits.append((float(fields[0]), int(fields[1]), int(fields[2])))
            elif kind == "d":
                self.acks.append((float(fields[0]), float(fields[1]), fields[2]))

    def longest_silence_s(self, since, until):
        """The longest time without an acknowledged write at the virtual address."""
        moments = [since] + [w[1] for w in self.writes if w[4] == "ok" and since < w[1] < until] + [until]
        return max(later - sooner for sooner, later in zip(moments, moments[1:]))

    def is_served_since(self, since):
        """Whether each counter was written anew since then: no read from here on can show what a fault lost before."""
        return len({w[2] for w in self.writes if w[4] == "ok" and w[0] > since}) == COUNTERS

    def hit_ratio(self, since, until):
        taken = [(hits, asked) for at, hits, asked in self.hits if since <= at < until]
        asked = sum(asked for _, asked in taken)
        return sum(hits for hits, _ in taken) / asked if asked else 0.0

    def acknowledged_late(self, old, new):
        """How many writes the old primary acknowledged while the new one did as well, and over which time."""
        of_new = [ended for _, ended, node in self.acks if node == new.address]
        if not of_new:
            return 0, 0.0
        late = [ended for _, ended, node in self.acks if node == old.address and min(of_new) < ended < max(of_new)]
        return len(late), max(late) - min(late) if late else 0.0

    def judge_reads(self, risk_from, risk_until):
        """Counts the reads that show less than was acknowledged, by explanation."""
        acked = collections.defaultdict(list)
        unanswered = set()
        highest = {}
        for begun, ended, key, value, outcome in self.writes:
            highest[key] = (begun, value)
            if outcome == "ok":
                acked[key].append((ended, value, begun))
            else:
                unanswered.add((key, value))
        verdicts = collections.Counter()
        strange = []
        known = {(w[2], w[3]) for w in self.writes}
        oldest = {key: entries[0][1] for key, entries in acked.items()}
        # A write is noted once it is answered: a read behind the last one noted may show what is not noted yet.
        noted_until = max((ended for _, ended, _, _, _ in self.writes), default=0.0)
        for begun, ended, key, value in self.reads:
            if ended > noted_until:
                continue
            if value == -1:
                verdicts["misses"] += 1
                continue
            if (key, value) not in known and value >= oldest.get(key, 0):
                strange.append((begun, key, value, "never written"))
                continue
            entries = acked[key]
            at = bisect.bisect_left(entries, (begun,)) - 1
            if at < 0 or value >= entries[at][1]:
                verdicts["right"] += 1
                continue
            lost = [entry for entry in entries[: at + 1] if entry[1] > value]
            if all(risk_from <= entry[0] and entry[2] <= risk_until for entry in lost):
                verdicts["lost in the window"] += 1
            elif (key, value) in unanswered:
                verdicts["an unanswered write that came late"] += 1
            else:
                strange.append((begun, key, value, f"acknowledged before: {lost[-1][1]} at {lost[-1][0]:.3f}"))
        return verdicts, strange


class Field:
    """The running cluster and what is checked on it."""

    def __init__(self, cluster):
        self.cluster, self.notes, self.failures = cluster, Notes(cluster.notes), []

    def check(self, name, fault, silence_max_s, both_max_s=0.5, moves=None, at_risk_until_s=0.0,
              at_risk_s=AT_RISK_S):
        """Carries a fault out between two healthy states and judges all that the client saw.

        `fault` gets the primary and the spare; it ends when the fault has ended. `moves`: whether the virtual address
        has to move, or has to stay (None: either). `at_risk_until_s`: how long after the fault's beginning writes may
        still be lost, where the old primary goes on. `at_risk_s`: how long before it (None: no write may be lost).
        """
        began = time.monotonic()
        wait_until("a healthy pair", CONVERGE_LIMIT_S, self.cluster.has_converged)
        self.notes.begin()
        time.sleep(1.0)
        primary, spare = self.cluster.primary_and_spare()
        at = time.monotonic()
        fault(primary, spare)
        problems = []
        healed = time.monotonic()
        try:
            wait_until("both nodes to converge", CONVERGE_LIMIT_S, self.cluster.has_converged)
        except AssertionError as why:
            problems.append(str(why))
        converged = time.monotonic()
        time.sleep(1.0)
        # The network may lead the client to the wrong machine for some seconds more, which is silence of this fault, and
        # what it lost shows in this fault's reads.
        try:
            wait_until("the client to be served at the virtual address again", CONVERGE_LIMIT_S,
                       lambda: self.notes.take() or self.notes.is_served_since(converged))
        except AssertionError as why:
            problems.append(str(why))
        end = time.monotonic()
        self.notes.take()
        if self.cluster.client.poll() is not None:
            problems.append("the client met a wrong value, see client.log")
        silence = self.notes.longest_silence_s(at - 0.5, end)
        if silence > silence_max_s:
            problems.append(f"silent for {silence:.2f} s, stated {silence_max_s:.1f}")
        before, after = self.notes.hit_ratio(at - 1.0, at), self.notes.hit_ratio(at, end)
        if after < before * HIT_RATIO_MIN or before < HIT_RATIO_MIN:
            problems.append(f"hit ratio {before:.4f} before and {after:.4f} after")
        late, both = self.notes.acknowledged_late(primary, spare)
        if both > both_max_s:
            problems.append(f"both nodes acknowledged for {both:.2f} s, stated {both_max_s:.1f}")
        moved = spare.has_virtual()
        if moves is not None and moved != moves:
            problems.append("the virtual address moved" if moved else "the virtual address stayed")
        risk_from = at - at_risk_s if moves is not False and at_risk_s is not None else end
        verdicts, strange = self.notes.judge_reads(risk_from, at + at_risk_until_s + CLIENT_S)
        problems += [f"unexplained: {text}" for text in strange[:5]]
        if len(strange) > 5:
            problems.append(f"and {len(strange) - 5} more unexplained reads")
        items = [machine.items() for machine in self.cluster.machines]
        if not problems and abs(items[0] - items[1]) > 5:
            problems.append(f"the nodes hold {items[0]} and {items[1]} items")
        reads = ", ".join(f"{count} {what}" for what, count in verdicts.items())
        print(
            f"{'FAILED' if problems else 'ok':6} {name}: silent {silence:.2f} s (at most {silence_max_s:.1f}), "
            f"address {'moved' if moved else 'stayed'}, hits {before:.4f} then {after:.4f}, both acknowledged "
            f"for {both:.2f} s (at most {both_max_s:.1f}; {late} times), converged {converged - healed:.1f} s after, reads: {reads} "
            f"[{time.monotonic() - began:.0f} s]",
            flush=True,
        )
        for problem in problems:
            print(f"       {problem}", flush=True)
        if problems:
            self.failures.append(name)

    def primary_is_killed(self):
        def fault(primary, _):
            primary.kill()
            time.sleep(5)
            primary.start_node()

        self.check("kill -9 of the primary", fault, DEAD_LIMIT_S, moves=True)

    def primary_is_killed_and_comes_back_at_once(self):
        def fault(primary, _):
            primary.kill()
            primary.start_node()
            time.sleep(3)

        self.check("kill -9 of the primary, which is started anew at once", fault, DEAD_LIMIT_S, moves=True)

    def spare_is_killed(self):
        def fault(_, spare):
            spare.kill()
            time.sleep(3)
            spare.start_node()

        self.check("kill -9 of the spare", fault, CLIENT_S, moves=False)

    def primary_is_stopped(self, seconds):
        def fault(primary, _):
            primary.signal(signal.SIGSTOP)
            time.sleep(seconds)
            primary.signal(signal.SIGCONT)

        moves = False if seconds < 1 else True if seconds > HANGING_LIMIT_S else None
        # Who wakes as an old primary answers what lies in its sockets, until the new one's word reaches it.
        limit = CLIENT_S + seconds if moves is False else HANGING_LIMIT_S
        self.check(f"SIGSTOP of the primary for {seconds} s", fault, limit, both_max_s=1.0, moves=moves,
                   at_risk_until_s=0 if moves is not None else HANGING_LIMIT_S)

    def cable_is_pulled(self):
        def fault(primary, _):
            primary.set_link("down")
            time.sleep(5)
            primary.set_link("up")

        self.check("link of the primary down", fault, UNHEARD_LIMIT_S, both_max_s=1.0, moves=True)

    def primary_is_unheard(self, seconds):
        """After 2 s the spare is promoted, after 5 the old primary steps down, after 8 it has lost the address."""
        def fault(primary, _):
            primary.cut_towards_other(True)
            time.sleep(seconds)
            primary.cut_towards_other(False)

        # Once they hear each other again keepalived gives the address to the higher priority, and that node has to take
        # the other's items before it may reign.
        moves = True if seconds > 10 else None
        self.check(f"one way cut for {seconds} s: the spare hears nothing of the primary", fault, LED_BACK_LIMIT_S,
                   both_max_s=CONTEST_LIMIT_S, moves=moves, at_risk_until_s=seconds + CONTEST_LIMIT_S)

    def replication_is_cut(self):
        def fault(primary, _):
            primary.cut_replication_towards_other(True)
            time.sleep(6)
            primary.cut_replication_towards_other(False)

        self.check("one way cut of the replication alone", fault, CLIENT_S, moves=False)

    def spare_is_unheard(self):
        def fault(_, spare):
            spare.cut_towards_other(True)
            time.sleep(6)
            spare.cut_towards_other(False)

        self.check("one way cut: the primary hears nothing of the spare", fault, CLIENT_S, moves=False)

    def keepalived_is_stopped(self):
        def stopped_by(which):
            def fault(primary, _):
                primary.stop_keepalived(which)
                time.sleep(4)
                primary.start_keepalived()
                time.sleep(3)

            return fault

        # The node serves on until the other one is promoted. Of a stop keepalived says so: the other one waits only for its skew.
        self.check("keepalived stopped on the primary's machine", stopped_by(signal.SIGTERM), CLIENT_S + 1, moves=True,
                   at_risk_until_s=1)
        self.check("keepalived killed on the primary's machine", stopped_by(signal.SIGKILL), UNHEARD_LIMIT_S,
                   both_max_s=1.0, moves=True, at_risk_until_s=UNHEARD_LIMIT_S - CLIENT_S)

    def nodes_are_restarted_in_turn(self):
        self.check("restart of the primary", lambda primary, _: primary.restart(), DEAD_LIMIT_S, moves=True)
        self.check("restart of the spare", lambda _, spare: spare.restart(), CLIENT_S, moves=False)
        self.check("restart of the new primary", lambda primary, _: primary.restart(), DEAD_LIMIT_S, moves=True)

    def primary_hands_over_before_it_is_stopped(self):
        """README's planned work on the primary."""
        def fault(primary, _):
            primary.stop_helper()
            primary.hand_over()
            primary.stop_keepalived(signal.SIGTERM)
            time.sleep(3)
            primary.restart()
            primary.start_helper()
            primary.start_keepalived()
            time.sleep(3)

        self.check("the primary hands over, then is restarted", fault, CLIENT_S + 1, moves=True, at_risk_s=None)

    def scenarios(self):
        stops = {f"stop-{seconds}": seconds for seconds in (0.1, 1, 3, 8, 30)}
        return {
            "kill": self.primary_is_killed,
            "kill-spare": self.spare_is_killed,
            "kill-restart": self.primary_is_killed_and_comes_back_at_once,
            **{name: (lambda seconds=seconds: self.primary_is_stopped(seconds)) for name, seconds in stops.items()},
            "link": self.cable_is_pulled,
            "replication": self.replication_is_cut,
            **{f"unheard-{seconds}": (lambda seconds=seconds: self.primary_is_unheard(seconds))
               for seconds in (4, 6.5, 12)},
            "unheard-spare": self.spare_is_unheard,
            "keepalived": self.keepalived_is_stopped,
            "restart": self.nodes_are_restarted_in_turn,
            "handover": self.primary_hands_over_before_it_is_stopped,
        }


def missing():
    """Why this machine can't run it, if it can't."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    for program in ("ip", "keepalived"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    probe = f"hs{os.getpid()}probe"
    made = os.system(f"ip netns add {probe} 2>/dev/null && ip -n {probe} link add x type veth peer name y 2>/dev/null")
    os.system(f"ip netns del {probe} 2>/dev/null")
    return "network namespaces or veth are not allowed here" if made else None


def main():
    binary, wanted = sys.argv[1], sys.argv[2:]
    reason = missing()
    if reason:
        print(f"skipped: {reason}")
        return 0
    folder = tempfile.mkdtemp(prefix="hotspare-field-")
    field = None
    try:
        with Cluster(binary, folder) as cluster:
            cluster.start()
            field = Field(cluster)
            scenarios = field.scenarios()
            for name in wanted or scenarios:
                scenarios[name]()
    finally:
        if field is None or field.failures or sys.exc_info()[0]:
            print(f"logs are kept in {folder}")
        else:
            shutil.rmtree(folder)
    if field.failures:
        print(f"{len(field.failures)} failed: {'; '.join(field.failures)}")
    return 1 if field.failures else 0


if __name__ == "__main__":
    sys.exit(main())
