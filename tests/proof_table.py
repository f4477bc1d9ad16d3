"""What the proof came to: a table at the end of `make proof`, with one line for each case and one for the whole.

Each test of `test_proof.py` notes on its report what it is about, in plain values, so that it works under xdist too. A
run of a part of them has no table.
"""

from collections import Counter, defaultdict

import pytest

from pytest_trainguard import catalog

NOTE = "proof"
HEAD = f"{'case':>4}  {'edge case':<38} {'saboteurs killed':>16} {'sound passed':>12} {'false alarms':>12} {'n/a':>4}"


class Proof:
    """The reports of one session, put together.

    Attributes:
        found: for each case the outcomes, counted: `killed`, `alive`, `passed`, `not applicable`, `false alarm`.
        wrong: what is alive, and what gave a false alarm, by name.
    """

    def __init__(self):
        self.found, self.wrong = defaultdict(Counter), []
        self.seen, self.all = 0, -1

    def pytest_runtest_logreport(self, report):
        note = dict(report.user_properties).get(NOTE)
        if note is None or not (report.when == "call" or (report.when == "setup" and report.outcome != "passed")):
            return
        self.seen, self.all = self.seen + 1, note["all"]
        outcome = outcome_of(note, report.outcome)
        self.found[note["case"]][outcome] += 1
        if outcome in ("alive", "false alarm"):
            self.wrong.append(f"{outcome}: case {note['case']}, {note['program']}")

    @property
    def whole(self):
        """Every test of the proof came to its end."""
        return self.seen == self.all

    def proven(self, case):
        counts = self.found[case.key]
        return bool(counts["killed"] and counts["passed"]) and not counts["alive"] and not counts["false alarm"]

    def lines(self, cases):
        """The table, its last line included."""
        yield HEAD
        for case in cases:
            counts = self.found[case.key]
            killed = f"{counts['killed']} of {counts['killed'] + counts['alive']}"
            number = "" if case.number is None else case.number
            yield (
                f"{number:>4}  {case.title:<38} {killed:>16} {counts['passed']:>12} {counts['false alarm']:>12} "
                f"{counts['not applicable']:>4}{'' if self.proven(case) else '  NOT PROVEN'}"
            )
        yield from self.wrong
        yield self.last_line(cases)

    def last_line(self, cases):
        proven = sum(self.proven(case) for case in cases)
        total = Counter()
        for counts in self.found.values():
            total.update(counts)
        alive, alarms = total["alive"], total["false alarm"]
        whole = len(cases)
        told = ", ".join(
            (
                f"{proven} of {whole} proven",
                f"{alive} alive" if alive else "none alive",
                f"{alarms} false alarm{'s' * (alarms > 1)}" if alarms else "no false alarm",
            )
        )
        return told if proven == whole and not (alive or alarms) else f"NO: {told}"


def outcome_of(note, outcome):
    """What one test says of its case."""
    if note["kind"] == "saboteur":
        return "killed" if outcome == "passed" else "alive"
    if outcome != "passed":
        return "false alarm"
    return "not applicable" if note["not_applicable"] else "passed"


def pytest_configure(config):
    config.pluginmanager.register(Proof(), "proof")


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter, config):
    proof = config.pluginmanager.get_plugin("proof")
    if proof.whole:
        terminalreporter.section("proof")
        for line in proof.lines(catalog.read_cases()):
            wrong = line.startswith(("NO: ", "alive: ", "false alarm: ")) or line.endswith("NOT PROVEN")
            terminalreporter.write_line(line, red=wrong)
