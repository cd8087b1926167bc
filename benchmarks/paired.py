"""What the paired benchmarks share: a process for each turn, spreads, tables, a new JSON file, a command."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from residual.errors import InputError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def in_new_process(function: Callable[[], T]) -> T:
    """Return what a function returns in a process that shares nothing with this one or an earlier one."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function).result()


def peak_bytes() -> int:
    """Return the largest memory that this process has had."""
    return getrusage(RUSAGE_SELF).ru_maxrss * 1024


def worthwhile(sides: Iterable[str], device: str = "cpu") -> list[str]:
    """Return the sides without the one in bfloat16 where a CPU has no instructions for it and takes hours."""
    import torch

    from residual.device import slow_bfloat16

    slow = slow_bfloat16(torch.device(device), "bfloat16")
    return [side for side in sides if not (slow and side == "bfloat16")]


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the 50th, 90th and 99th percentile."""
    cuts = quantiles(values, n=100, method="inclusive")
    return {f"p{n}": cuts[n - 1] for n in (50, 90, 99)}


def matrix_product_rate(dtype: "torch.dtype", size: int = 2048, products: int = 20) -> float:
    """Return the FLOP/s of square matrix products of a type, on PyTorch's default number of threads.

    That of the fastest one: the ceiling is what the machine can do, not what others leave of it.
    """
    import torch

    a, b, out = (torch.randn(size, size).to(dtype) for _ in range(3))

    def seconds() -> float:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        return time.perf_counter() - start

    return 2 * size**3 / min(seconds() for _ in range(products))


def check_new_file(out: Path | None, option: str = "--out") -> None:
    """Raise an InputError where the result could not be written, before minutes are spent on it."""
    if out is None:
        return
    if out.exists():
        raise InputError(f"{option} {out}: the file is there already; name another, or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} {out}: cannot make the folder: {error.strerror}") from None
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"{option} {out}: cannot write to {out.parent}")


def environment(device: str) -> dict[str, Any]:
    """Return what stands beside a benchmark's result; asked for before it is measured, for its commit."""
    import torch

    from residual.environment import describe

    return describe(torch.device(device), ranks=1)


def in_rounds(rounds: int, turn: Callable[[int], T]) -> list[T]:
    """Return what each round's turns gave, given its number from 1 on."""
    found = []
    for number in range(1, rounds + 1):
        found.append(turn(number))
        print(f"round {number} of {rounds}", file=sys.stderr)
    return found


def write_json(result: dict[str, Any], out: Path | None) -> None:
    if out:
        with out.open("x", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")


def print_table(
    console: Console,
    title: str,
    against: str,
    rows: Sequence[Sequence[str]],
    more: Sequence[str] = (),
    **options: Any,
) -> None:
    """Print what sides reached: images/s, the ratio to the side they are held against, memory, and more."""
    table = Table(title=title, **options)
    for heading in ("", "", "images/s", f"it / {against}", "min-max", "peak, GB", *more):
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def print_checks(console: Console, checks: dict[str, bool]) -> None:
    """Print which targets are reached."""
    for name, passed in checks.items():
        console.print(f"{'yes' if passed else 'NO '}  {name}")


def run(benchmark: Callable[..., None], epilog: str) -> None:
    """Run a benchmark as a command of its file's name; a wrong input ends with a sentence and code 2."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(epilog=epilog)(benchmark)
    try:
        app()
    except InputError as error:
        print(f"{Path(sys.argv[0]).stem}: {error}", file=sys.stderr)
        sys.exit(2)
