"""What the paired benchmarks share: processes of their own for each turn, spreads, and a new JSON file."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from statistics import median, quantiles
from typing import Any, TypeVar

from residual.errors import InputError

T = TypeVar("T")


def in_new_process(function: Callable[[], T]) -> T:
    """Return what a function returns in a process that shares nothing with this one or an earlier one."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function).result()


def peak_bytes() -> int:
    """Return the largest memory that this process has had."""
    return getrusage(RUSAGE_SELF).ru_maxrss * 1024


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the 50th, 90th and 99th percentile."""
    cuts = quantiles(values, n=100, method="inclusive")
    return {f"p{n}": cuts[n - 1] for n in (50, 90, 99)}


def check_new_file(out: Path | None) -> None:
    """Raise an InputError where the result could not be written, before minutes are spent on it."""
    if out is None:
        return
    if out.exists():
        raise InputError(f"--out {out}: the file is there already; name another, or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot make the folder: {error.strerror}") from None
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"--out {out}: cannot write to {out.parent}")


def write_json(result: dict[str, Any], out: Path | None) -> None:
    if out:
        with out.open("x", encoding="utf-8") as file:
            json.dump(result, file, indent=2)
            file.write("\n")
