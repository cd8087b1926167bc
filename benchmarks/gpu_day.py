"""What a day with a GPU has reached, beside what was wanted: the table that gpu_day.sh ends with."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from train_gpu import ITERATIONS, WANTED_SECONDS

from residual.reproduce.paper import TABLE6
from residual.reproduce.study import CIFAR10, ClassifierRun, Study

Row = tuple[str, str, str, str]

#: What benchmarks write, in the order in which gpu_day.sh runs them.
BENCHMARKS = (
    *("train-20", "train-110", "detection-inference", "testing"),
    *("train-56", "detection-training", "combo"),
)


def rows_of(out: Path, study: Path) -> Iterator[Row]:
    """Yield what was measured, the number that was reached, the one that was wanted, and whether it holds.

    Args:
        out: the folder with the benchmarks' results and the tests' last words.
        study: the study of CIFAR-10.
    """
    tests = out / "tests.log"
    last = tests.read_text(encoding="utf-8").strip().splitlines()[-1:] if tests.is_file() else []
    # Of a pytest that was ended the last line is none of its sums.
    failed = bool(last) and (" passed" not in last[0] or "failed" in last[0] or "error" in last[0])
    passed = _verdict(not failed if last else None)
    yield "tests marked gpu", last[0] if last else "not run", "all pass", passed
    # Measured where compiling has failed.
    instead = ("eager",) if (out / "eager.json").is_file() else ()
    for name in (*instead, *BENCHMARKS):
        file = out / f"{name}.json"
        if not file.is_file():
            yield f"benchmark {name}", "not run", "", ""
            continue
        for what, reached in json.loads(file.read_text(encoding="utf-8"))["checks"].items():
            yield f"{name}, {what}", "", "", _verdict(reached)
    runs = Study(study, CIFAR10, train=False)
    for network in ("plain20", "resnet20", "resnet56", "resnet110"):
        run = runs.complete(network)
        if run is None:
            yield f"{network}, a whole run", "not run, or not complete", "", ""
        else:
            yield from _of_run(run)


def _of_run(run: ClassifierRun) -> Iterator[Row]:
    """Yield the rows of a complete run; a shortened one is held against nothing."""
    seconds, iterations = run.results["seconds"], run.results["iterations"]
    whole = iterations == ITERATIONS and not run.plain
    wanted = WANTED_SECONDS.get(run.depth) if whole else None
    reached = f"{seconds:.0f} s for {iterations:,} iterations"
    yield (
        f"{run.label}, training",
        reached,
        f"{wanted:g} s" if wanted else "",
        _verdict(wanted and seconds <= wanted),
    )
    paper = TABLE6.get(run.depth) if whole else None
    yield (
        f"{run.label}, test error",
        f"{run.test_error:.2f} %",
        f"{paper.mean} % (paper)" if paper else "",
        "",
    )


def _verdict(reached: bool | float | None) -> str:
    return "" if reached is None else "yes" if reached else "NO"


def main(out: Path, study: Path) -> None:
    table = Table(title="reached and wanted")
    for heading in ("", "reached", "wanted", ""):
        table.add_column(heading, overflow="fold")
    for row in rows_of(out, study):
        table.add_row(*row)
    Console(highlight=False).print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
