"""Table 6: test errors on CIFAR-10, ours beside the paper's and those of the systems that it quotes."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from ..models import depth_of
from ..table import Table, TableRow, not_comparable
from .curves import HIGHWAYS
from .paper import TABLE6, TABLE6_OTHERS, CifarError
from .study import ClassifierRun, Study, departures_of

DEPTHS = tuple(TABLE6)
#: The paper's rivals, of its own recipe here; FitNet's teacher comes before it.
RIVALS = ("maxout", "nin", "dsn", "fitnet19", "fitnet19-hints", *HIGHWAYS)
HEADINGS = ("method", "layers", "params", "paper, %", "ours, %", "seeds", "diff.", "time")
NAMES = {"cifar10": "CIFAR-10", "digits": "handwritten digits"}


@dataclass(frozen=True)
class CifarRow:
    """A row of the table.

    Attributes:
        published: the paper's row, None for a depth that the paper has not.
        quoted: whether it is of a system that we only quote.
        depth: layers, None where the paper gives none.
        errors: our test errors in percent by seed, of the final iteration; empty where nothing was run.
        parameters: of our network.
        seconds: training time, mean over the seeds.
        departs: whether the runs are of another schedule or dataset than the paper's.
        network: what the study calls it.
    """

    published: CifarError | None
    quoted: bool
    depth: int | None
    errors: dict[int, float]
    parameters: int | None = None
    seconds: float | None = None
    departs: bool = False
    network: str = ""

    @property
    def method(self) -> str:
        if self.published:
            return self.published.method
        if self.network.startswith("plain"):
            return "plain"
        return "FitNet, no hints" if self.network in RIVALS else "ResNet"

    @property
    def name(self) -> str:
        """The method and its layers in one, as in the paper's text: "ResNet-20", "FitNet-19, no hints"."""
        kind, comma, more = self.method.partition(",")
        return f"{kind}-{self.depth}{comma}{more}" if self.depth else self.method

    @property
    def mean(self) -> float | None:
        return statistics.mean(self.errors.values()) if self.errors else None

    @property
    def std(self) -> float | None:
        """Over the seeds, with n - 1 in the denominator; None for fewer than two."""
        return statistics.stdev(self.errors.values()) if len(self.errors) > 1 else None

    @property
    def difference(self) -> float | None:
        """Our mean minus the paper's, in percentage points; None where they are not comparable."""
        if self.mean is None or self.published is None or self.departs:
            return None
        return self.mean - self.published.mean

    @property
    def ours(self) -> str:
        """In the paper's writing: "best (mean ± std)" where there are several seeds."""
        if self.quoted:
            return "quoted"
        if self.mean is None:
            return "not run"
        if self.std is None:
            return f"{self.mean:.2f}"
        return f"{min(self.errors.values()):.2f} ({self.mean:.2f} ± {self.std:.2f})"

    def cells(self) -> list[str]:
        """Return the row as text, in the order of ``HEADINGS``."""
        published = self.published
        millions = f"{self.parameters / 1e6:.2f}M" if self.parameters else None
        if millions is None and published and published.parameters:
            millions = f"{published.parameters:g}M"
        return [
            self.method,
            str(self.depth or ""),
            millions or "",
            published.error if published else "",
            self.ours,
            str(len(self.errors) or ""),
            f"{self.difference:+.2f}" if self.difference is not None else "",
            duration(self.seconds) if self.seconds is not None else "",
        ]


def table6(
    study: Study[ClassifierRun],
    depths: Sequence[int] = DEPTHS,
    seeds: Sequence[int] = (0,),
    highway: bool = False,
    rivals: bool = False,
) -> tuple[list[CifarRow], list[ClassifierRun]]:
    """Run what is missing, print the table, and write it as table6.json and table6.md.

    Args:
        depths: of the residual networks.
        seeds: of the runs of each network.
        highway: whether to train the highway networks as well; runs of theirs that are there are shown.
        rivals: whether to train all rivals.

    Returns:
        The rows, and the runs that they are made of.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    networks = [f"resnet{depth}" for depth in depths]
    asked = [*networks, *(RIVALS if rivals else HIGHWAYS if highway else ())]
    # Of those that nobody asks for are shown that are there: rivals, and plain networks beside them.
    plain = [f"plain{depth}" for depth in depths] if rivals else []
    others = [
        name
        for name in (*RIVALS, *plain)
        if name in asked or any(study.complete(name, seed) for seed in seeds)
    ]
    runs = study.runs([*networks, *others], seeds, only=asked)
    rows = rows_of(depths, runs, plain=bool(plain))
    as_table(rows, runs).publish(
        study.out,
        "table6",
        {"table": 6, "departures": departures_of(runs)},
        [asdict(row) | {"mean": row.mean, "std": row.std, "difference": row.difference} for row in rows],
    )
    return rows, runs


def rows_of(depths: Sequence[int], runs: Sequence[ClassifierRun], plain: bool = False) -> list[CifarRow]:
    """Return the table's rows: the quoted systems, ours too where they were run, then ResNets by depth.

    Args:
        plain: whether plain networks that were run have a row, which the paper's table has not.
    """

    def row(published: CifarError | None, depth: int | None, network: str, quoted: bool) -> CifarRow:
        ours = [run for run in runs if run.network == network]
        return CifarRow(
            published,
            quoted and not ours,
            depth,
            {run.recipe.seed: run.test_error for run in ours},
            ours[0].results["parameters"] if ours else None,
            statistics.mean(run.results["seconds"] for run in ours) if ours else None,
            bool(departures_of(ours)),
            network,
        )

    # What was published of FitNet is of one that was taught.
    taught = {"fitnet19": "fitnet19-hints"}
    names = {other: f"{other.method.lower()}{other.layers or ''}" for other in TABLE6_OTHERS}
    quoted = [row(other, other.layers, taught.get(name, name), True) for other, name in names.items()]
    names_alone = [*taught, *(f"plain{depth}" for depth in sorted(depths) if plain)]
    alone = [row(None, depth_of(f"cifar_{name}"), name, False) for name in names_alone]
    return [
        *quoted,
        *(one for one in alone if one.errors),
        *(row(TABLE6.get(depth), depth, f"resnet{depth}", False) for depth in sorted(depths)),
    ]


def as_table(rows: Sequence[CifarRow], runs: Sequence[ClassifierRun]) -> Table:
    """Return rows as a table whose caption says what the numbers of the runs are, and what they are not."""
    dataset = runs[0].recipe.data.dataset if runs else "cifar10"
    caption = (
        f"Test error on {NAMES.get(dataset, dataset)}, final iteration, one view of each image; "
        f"best (mean ± std) over seeds.{not_comparable(departures_of(runs))}"
    )
    return Table("Table 6", HEADINGS, [TableRow(row.cells(), dim=row.quoted) for row in rows], caption)


def duration(seconds: float) -> str:
    """Return a time as people write it: "45 s", "12 min", "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
