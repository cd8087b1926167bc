"""What was tried, and what was found: the figures that ``make test-slow`` prints."""

import sys
from collections import Counter

from hypothesis import HealthCheck, settings

#: What must not be, whatever is tried.
FAULTS = ("traceback", "hang", "above 2 GB", "no sentence", "wrong result after resume", "wrong exit code")


def always_the_same(examples: int) -> settings:
    """Return the settings of an attack: so many examples, the same ones each time, however long they take."""
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class Figures:
    """Counts of what was tried and of how it ended."""

    def __init__(self) -> None:
        self.tries: Counter[str] = Counter()
        self.ends: Counter[str] = Counter()
        self.faults: dict[str, list[str]] = {}

    def tried(self, what: str) -> None:
        self.tries[what] += 1
        if not self.tries.total() % 20:
            say(f"{dict(self.tries)}, {dict(self.ends)}, {len(self.faults)} kinds of faults")

    def note(self, how: str) -> None:
        self.ends[how] += 1

    def fault(self, kind: str, what: str) -> None:
        self.faults.setdefault(kind, []).append(what)
        say(f"{kind}: {what}")

    def print(self, title: str) -> None:
        counts = {kind: len(self.faults.get(kind, [])) for kind in FAULTS}
        for heading, numbers in (("tried", self.tries), ("ended", self.ends), ("faults", counts)):
            print(
                f"\n{title}, {heading}: " + ", ".join(f"{name} {count:,}" for name, count in numbers.items())
            )

    def check(self) -> None:
        """Raise an AssertionError that shows some of the faults, each kind once."""
        assert self.faults.keys() <= set(FAULTS)
        shown = [
            f"{kind} ({len(what)}): {each}" for kind, what in self.faults.items() for each in distinct(what)
        ]
        assert not shown, "\n" + "\n".join(shown)


def say(sentence: str) -> None:
    """Print, past capsys: with ``pytest -s`` the long tests show at once what they find."""
    print(sentence, file=sys.__stdout__, flush=True)


def distinct(faults: list[str]) -> list[str]:
    """Return a fault for each way to say it: without what differs from file to file."""
    found: dict[str, str] = {}
    for fault in faults:
        where, _, what = fault.partition(": ")
        found.setdefault(f"{where.partition(' of ')[0]} {what[:60]}", fault[:600])
    return list(found.values())
