"""What several commands share: options, printing, and reading an option's text."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import InputError

if TYPE_CHECKING:
    from ..evaluation.metrics import Metrics

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


Protocol = Annotated[
    Literal["center", "ten-crop", "multi-scale"] | None,
    typer.Option("--views", help="What of a folder's pictures is looked at (default: center)."),
]
Crop = Annotated[
    int | None,
    typer.Option(min=1, help="Side of the crops (default: what the network was trained on, as 224)."),
]
Scales = Annotated[
    str | None,
    typer.Option(
        metavar="SIDE,...",
        help="Shorter sides that pictures are resized to (default: 256; multi-scale 224,256,384,480,640).",
    ),
]
Precision = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(help="bfloat16 is about twice as fast where there are instructions for it, and less exact."),
]
SaveScores = Annotated[
    Path | None,
    typer.Option("--save-scores", help="Keep the softmax scores in this new .safetensors file."),
]


def print_json(value: dict[str, Any]) -> None:
    typer.echo(json.dumps(value, indent=2))


def numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: write numbers with commas between, as 0.5,0.5,0.5") from None


def warn(sentence: str) -> None:
    typer.echo(f"note: {sentence}", err=True)


def whole_numbers(option: str, text: str | None) -> tuple[int, ...] | None:
    try:
        return text if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text}: write whole numbers with commas between, as 224,256") from None


def print_errors(metrics: "Metrics") -> None:
    typer.echo(f"  top-1 error  {metrics.top1_error:6.2f} %")
    typer.echo(f"  top-5 error  {metrics.top5_error:6.2f} %")
    typer.echo(f"  loss         {metrics.loss:7.3f}")


def lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--classes {path}: cannot be read: {error}") from None
