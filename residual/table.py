"""Every table: made once, and printed, written and shown on a page from the same cells."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import rich.table
from rich.cells import cell_len

from .errors import on_a_line
from .files import as_json, write_derived
from .terminal import console, say

#: Letters of a name that are never folded, and those that separate columns.
NAME, BETWEEN = 16, 3
#: Letters of a number that give way only after names.
NUMBER = 6


@dataclass(frozen=True)
class TableRow:
    """A row as text.

    Attributes:
        note: what is said of it beside the numbers.
        dim: whether it is not ours.
        rule: whether a line stands above it, as above a total.
    """

    cells: Sequence[str]
    note: str = ""
    dim: bool = False
    rule: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; a column in which no row has anything is left out.

    Attributes:
        caption: what the numbers are, and what they are not.
        names: how many columns at the left name a row; the others are numbers.
        remark: what stands below it, as Markdown.
    """

    title: str
    headings: Sequence[str]
    rows: Sequence[TableRow]
    caption: str = ""
    names: int = 1
    remark: str = ""

    def print(self, *, stderr: bool = False) -> None:
        """Print it for a terminal: notes stand below, for beside the numbers there is no room."""
        table = rich.table.Table(title=self.title, caption=self.caption or None)
        used = self._used
        for n, width in zip(used, self._widths(console(stderr=stderr).width), strict=True):
            side: Literal["left", "right"] = "left" if n < self.names else "right"
            table.add_column(self.headings[n], justify=side, overflow="fold", width=width)
        notes: dict[str, list[str]] = {}
        for row in self.rows:
            if row.rule:
                table.add_section()
            table.add_row(*(on_a_line(row.cells[n]) for n in used), style="dim" if row.dim else None)
            if row.note:
                name, *more = row.cells[: self.names]
                notes.setdefault(row.note, []).append(f"{name} ({', '.join(more)})" if more else name)
        console(stderr=stderr).print(table)
        say(*(f"{note}: {'; '.join(names)}" for note, names in notes.items()), stderr=stderr)
        if self.remark:
            say(self.remark, stderr=stderr)

    def _widths(self, console_width: int) -> list[int]:
        """Return the letters of each column that is shown in a terminal of a width."""
        used = self._used
        cells = [[row.cells[n] for row in self.rows] for n in used]
        whole = [max(map(cell_len, (self.headings[n], *cells[place]))) for place, n in enumerate(used)]
        # Headings are folded between words.
        folded = [
            max(map(cell_len, (*self.headings[n].split(), *cells[place])), default=0)
            for place, n in enumerate(used)
        ]
        named = sum(n < self.names for n in used)
        names, numbers = [min(NAME, width) for width in folded[:named]], folded[named:]
        room = console_width - BETWEEN * len(used) - 1

        def fold(columns: list[int], least: int) -> None:
            while sum(names) + sum(numbers) > room and max(columns, default=0) > least:
                columns[columns.index(max(columns))] -= 1

        # In a narrow terminal numbers are folded first: a name in parts is none.
        fold(numbers, NUMBER)
        if max(folded[:named], default=0) > NAME:
            # One is in parts already, and no number at all is worse.
            fold(names, NAME // 2)
        fold(numbers, 1)
        widths = names + numbers
        # What is left is for what is cut, the narrowest first, and then for headings on one line.
        for wanted in (folded, whole):
            while sum(widths) < room and (
                cut := [place for place, width in enumerate(widths) if width < wanted[place]]
            ):
                widths[min(cut, key=widths.__getitem__)] += 1
        return widths

    def markdown(self) -> str:
        numbers = len(self._used) - self.names
        rule = ["---"] * self.names + ["--:"] * numbers + ["---"] * self._noted
        lines = [
            f"# {self.title}",
            "",
            f"| {' | '.join(self._headings)} |",
            f"|{'|'.join(rule)}|",
            *(f"| {' | '.join(cells)} |" for cells in self._cells),
            *(part for text in (self.caption, self.remark) if text for part in ("", text)),
        ]
        return "\n".join(lines) + "\n"

    def content(self) -> dict[str, Any]:
        """Return it as plain data, for a page."""
        return {"caption": self.caption, "headings": self._headings, "cells": self._cells}

    def publish(self, folder: Path, name: str, about: dict[str, Any], rows: Sequence[Any]) -> None:
        """Print it, and write it as ``name.md`` and ``name.json``.

        Args:
            about: what else the JSON says of it.
            rows: what the rows were made of, as plain data.

        Raises:
            InputError: when they cannot be written.
        """
        self.print()
        write_derived(folder / f"{name}.md", self.markdown())
        write_derived(folder / f"{name}.json", as_json({**about, **self.content(), "rows": rows}))
        say(f"written: {folder / name}.md, .json")

    @property
    def _used(self) -> list[int]:
        """The columns that are shown: those that name a row, and those with something in them."""
        count = len(self.headings)
        return [n for n in range(count) if n < self.names or any(row.cells[n] for row in self.rows)]

    @property
    def _noted(self) -> bool:
        return any(row.note for row in self.rows)

    @property
    def _headings(self) -> list[str]:
        return [*(self.headings[n] for n in self._used), *[""] * self._noted]

    @property
    def _cells(self) -> list[list[str]]:
        return [[*(row.cells[n] for n in self._used), *[row.note] * self._noted] for row in self.rows]


def not_comparable(departures: Sequence[str]) -> str:
    """Return the sentence of a caption that says why numbers are not to be compared, "" where they are."""
    return f" Not the paper's experiment, so not comparable: {'; '.join(departures)}." if departures else ""


def difference(*pairs: tuple[float | None, float | None], digits: int) -> str:
    """Return ours minus the paper's of the first pair that has both, "" where none has."""
    both = ((ours, papers) for ours, papers in pairs if ours is not None and papers is not None)
    return next((signed(ours - papers, digits) for ours, papers in both), "")


def signed(value: float, digits: int) -> str:
    """Return a number with its sign, which nought has not."""
    text = f"{value:+.{digits}f}"
    return text if float(text) else text[1:]
