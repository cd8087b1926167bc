"""Table 6: test errors on CIFAR-10, ours beside the paper's and those of the systems that it quotes."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from .files import write_json, write_text
from .paper import TABLE6, TABLE6_OTHERS, Published
from .study import Finished, Study, departures_of

DEPTHS = tuple(TABLE6)


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        published: the paper's row, None for a depth that the paper has not.
        quoted: whether it is of a system that we only quote.
        depth: layers, None where the paper gives none.
        errors: our test errors in percent by seed, of the final iteration; empty where nothing was run.
        parameters: of our network.
        seconds: training time, mean over the seeds.
        departs: whether the runs are of another schedule or data set than the paper's.
    """

    published: Published | None
    quoted: bool
    depth: int | None
    errors: dict[int, float]
    parameters: int | None = None
    seconds: float | None = None
    departs: bool = False

    @property
    def method(self) -> str:
        return self.published.method if self.published else "ResNet"

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


HEADINGS = ("method", "layers", "params", "paper, %", "ours, %", "seeds", "diff.", "time")
NAMES = {"cifar10": "CIFAR-10", "digits": "handwritten digits"}


def table6(study: Study, depths: Sequence[int] = DEPTHS, seeds: int = 1) -> list[Row]:
    """Run what is missing, print the table, and write it as table6.json and table6.md.

    Raises:
        InputError, Interrupted: as ``Study.runs``.
    """
    found = study.runs([f"resnet{depth}" for depth in depths], seeds)
    rows = rows_of({depth: found[f"resnet{depth}"] for depth in depths})
    runs = [run for network in found.values() for run in network]
    text = caption(runs)
    console = Console()
    console.print(as_table(rows, text))
    write_text(study.out / "table6.md", as_markdown(rows, text))
    write_json(study.out / "table6.json", as_json(rows, departures_of(runs)))
    console.print(f"written: {study.out / 'table6.md'}, table6.json", highlight=False, soft_wrap=True)
    return rows


def rows_of(found: dict[int, list[Finished]]) -> list[Row]:
    """Return the table's rows: the quoted systems, then our networks by depth."""
    quoted = [Row(other, True, other.layers, {}) for other in TABLE6_OTHERS]
    ours = []
    for depth in sorted(found):
        runs = found[depth]
        ours.append(
            Row(
                TABLE6.get(depth),
                False,
                depth,
                {run.recipe.seed: run.test_error for run in runs},
                runs[0].results["parameters"] if runs else None,
                statistics.mean(run.results["seconds"] for run in runs) if runs else None,
                bool(departures_of(runs)),
            )
        )
    return quoted + ours


def caption(runs: list[Finished]) -> str:
    """Say what the numbers are, and what they are not."""
    dataset = (
        NAMES.get(runs[0].recipe.data.dataset, runs[0].recipe.data.dataset) if runs else NAMES["cifar10"]
    )
    text = (
        f"Test error on {dataset}, final iteration, one view of each picture; best (mean ± std) over seeds."
    )
    if departures := departures_of(runs):
        text += f" Not the paper's experiment, so not comparable: {'; '.join(departures)}."
    return text


def as_table(rows: list[Row], caption: str) -> Table:
    """Return the table for a terminal."""
    table = Table(title="Table 6", caption=caption)
    for number, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row.cells(), style="dim" if row.quoted else None)
    return table


def as_markdown(rows: list[Row], caption: str) -> str:
    """Return the table as Markdown."""
    lines = [
        "# Table 6",
        "",
        "| " + " | ".join(HEADINGS) + " |",
        "|---|" + "--:|" * (len(HEADINGS) - 1),
        *("| " + " | ".join(row.cells()) + " |" for row in rows),
        "",
        caption,
    ]
    return "\n".join(lines) + "\n"


def as_json(rows: list[Row], departures: list[str]) -> dict[str, Any]:
    """Return the table as plain data."""
    return {
        "table": 6,
        "departures": departures,
        "rows": [
            asdict(row) | {"mean": row.mean, "std": row.std, "difference": row.difference} for row in rows
        ],
    }


def duration(seconds: float) -> str:
    """Return a time as people write it: "45 s", "12 min", "3.4 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
