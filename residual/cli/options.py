"""What several commands share: options, printing, and reading an option's text."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import InputError

DataDir = Annotated[
    Path | None, typer.Option(help="Where the data set lies, or is downloaded to (default: data).")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Eager = Annotated[
    bool, typer.Option("--eager", help="On a GPU: neither compile the network nor record its iterations.")
]
Deterministic = Annotated[
    bool,
    typer.Option("--deterministic", help="On a GPU: the same bits each time, but slower."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a value of the recipe, as schedule.iterations=2000."
    ),
]
Classes = Annotated[int | None, typer.Option(min=1, help="Number of classes.")]
Shortcut = Annotated[Literal["A", "B", "C"] | None, typer.Option(help="Shortcut option (Section 3.3).")]
Variant = Annotated[
    Literal["v1", "v1.5"] | None,
    typer.Option(help="Stride of a bottleneck on its first 1x1 (v1, the paper) or its 3x3 (v1.5)."),
]


def print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))


def numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: write numbers with commas between, as 0.5,0.5,0.5") from None


def lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--classes {path}: cannot be read: {error}") from None
