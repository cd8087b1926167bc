"""Table 6's rivals beside ResNets: errors against what the networks cost, on this machine."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..analysis.complexity import complexity
from ..analysis.cost_figures import CostPoint, errors_against_costs
from ..environment import describe
from ..files import read_json
from ..models import Classifier, build_model
from ..models.inference import for_inference
from ..table import Table, TableRow, not_comparable
from ..terminal import say
from ..training.folder import Kept
from .output import write_figure
from .study import AGAIN, ClassifierRun, departures_of
from .table6 import CifarRow

HEADINGS = ("network", "parameters", "mult-adds, 10^6", "ms an image", "published, %", "ours, %")
COSTS = ("parameters (million)", "multiply-adds of an image (million)", "time of an image (ms)")

#: Images are those of CIFAR-10, whatever the runs were of.
SIZE = (3, 32, 32)

#: Passes that a time is the median of, and the seconds after which there are enough.
PASSES, ENOUGH = (5, 50), 0.5


@dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        parameters: their number.
        multiply_adds: of an image.
        seconds: of an image by itself, on this machine's CPU, ready for use: the median of several passes.
    """

    parameters: int
    multiply_adds: int
    seconds: float


class KeptCost(Kept):
    """What is read of a network's costs that were written before."""

    network: str
    parameters: int
    multiply_adds: int
    seconds: float


class Machine(Kept):
    """What is read of where they were measured."""

    device: str
    threads: int


class KeptCosts(Kept):
    """The same of all of them, and where they were measured."""

    environment: Machine
    rows: list[KeptCost]


def rivals(out: Path, rows: Sequence[CifarRow], runs: Sequence[ClassifierRun], measure: bool = True) -> None:
    """Print networks beside what they cost, and write it as rivals.json, .md, .svg and .png.

    Published errors are drawn where runs are the paper's, or there are none: a shortened run is not to be
    compared with them.

    Args:
        rows: of Table 6.
        runs: that they are made of.
        measure: measure times anew; else those of rivals.json are shown again, where it has all of them.

    Raises:
        InputError: when they cannot be written, or rivals.json is damaged.
    """
    shown = [row for row in rows if row.published or row.errors]
    costs, environment = _costs(out / "rivals.json", [row.network for row in shown], measure)
    departures = departures_of(runs)
    points = [
        CostPoint(
            row.name,
            (cost.parameters / 1e6, cost.multiply_adds / 1e6, 1e3 * cost.seconds),
            row.mean,
            row.published.mean if row.published and not departures else None,
            row.network.startswith("resnet"),
        )
        for row, cost in zip(shown, costs, strict=True)
        if row.errors or not departures
    ]
    iterations = {run.results["iterations"] for run in runs} if departures else set()
    length = f" after {max(iterations):,} iterations" if iterations else ""
    write_figure(out, "rivals", errors_against_costs(points, COSTS, f"test error (%){length}"))
    threads = "a thread" if environment["threads"] == 1 else f"{environment['threads']} threads"
    caption = (
        f"Times: one image, on {threads} of {environment['device']}. A dash: the paper quotes no such "
        f"network.{not_comparable(departures)}"
    )
    table = Table(
        "Table 6's networks and what they cost",
        HEADINGS,
        [TableRow(_cells(row, cost), dim=not row.errors) for row, cost in zip(shown, costs, strict=True)],
        caption,
    )
    content = [
        {
            "network": row.network,
            **asdict(cost),
            "published": row.published.error if row.published else None,
            "mean": row.mean,
        }
        for row, cost in zip(shown, costs, strict=True)
    ]
    table.publish(out, "rivals", {"environment": environment, "departures": departures}, content)
    say(f"written: {out / 'rivals'}.svg, .png")


def _costs(file: Path, networks: Sequence[str], measure: bool) -> tuple[list[Cost], dict[str, Any]]:
    """Return what networks cost, and where that was measured: here and now, or when the file was written."""
    if not measure and file.exists():
        kept = read_json(file, KeptCosts, AGAIN)
        known = {
            row["network"]: Cost(row["parameters"], row["multiply_adds"], row["seconds"])
            for row in kept["rows"]
        }
        if known.keys() >= set(networks):
            return [known[network] for network in networks], kept["environment"]
    say(f"measuring the time of an image in {len(networks)} networks", stderr=True)
    return [cost_of(network) for network in networks], describe(torch.device("cpu"), 1)


def cost_of(network: str) -> Cost:
    """Return what a network of the study costs, by the study's name for it."""
    # What stands behind a dash is how it was trained.
    model = build_model(f"cifar_{network.partition('-')[0]}").eval()
    counted = complexity(model, SIZE)
    return Cost(counted.parameters, counted.multiply_adds, seconds_of(model))


@torch.inference_mode()
def seconds_of(model: Classifier) -> float:
    """Return the seconds that an image by itself takes, on a CPU."""
    ready = for_inference(model)
    image = torch.zeros(1, *SIZE).to(memory_format=torch.channels_last)
    taken: list[float] = []
    for _ in range(3):
        # Weights are put in order by the second image of a size.
        ready(image)
    least, most = PASSES
    while len(taken) < least or (len(taken) < most and sum(taken) < ENOUGH):
        start = time.perf_counter()
        ready(image)
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _cells(row: CifarRow, cost: Cost) -> list[str]:
    return [
        row.name,
        f"{cost.parameters:,}",
        f"{cost.multiply_adds / 1e6:.1f}",
        f"{1e3 * cost.seconds:.2f}",
        row.published.error if row.published else "-",
        row.ours if row.errors else "not run",
    ]
