"""What several commands share: options, printing, and reading an option's text."""

import glob
import inspect
import os
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_origin

import typer

from .. import torchrun
from ..errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..evaluation.metrics import Metrics
    from ..inference.evaluation import EvaluationOptions

#: Pixels of the largest side that is taken, as in a recipe (recipes/schema.py, which takes long to import).
SIDE = 8192
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder or CSV file of the images; CIFAR-10 is downloaded to it where it is not (default: data)."
    ),
]
TestDataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the images lie (default: where they lay in a run's last session; CIFAR-10 in data).",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Eager = Annotated[
    bool, typer.Option("--eager", help="On a GPU: neither compile the network nor record its iterations.")
]
Deterministic = Annotated[
    bool,
    typer.Option("--deterministic", help="On a GPU: the same bits each time, but slower."),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        min=0.01,
        # Two years; clocks know no infinite time.
        max=1_000_000,
        help="Stop after so many minutes, with a checkpoint to go on from and exit code 142.",
    ),
]
Threads = Annotated[
    int | None,
    typer.Option(
        min=1,
        max=1024,
        metavar="N",
        help="Threads on a CPU (default: one a core); take fewer where other programs run.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change a value of the recipe, as schedule.iterations=2000."
    ),
]
#: The largest number of classes or channels: of more, layers take more memory than there is.
NUMBER = 100_000
Classes = Annotated[int | None, typer.Option(min=1, max=NUMBER, help="Number of classes.")]
Shortcut = Annotated[Literal["A", "B", "C"] | None, typer.Option(help="Shortcut option (Section 3.3).")]
Variant = Annotated[
    Literal["v1", "v1.5"] | None,
    typer.Option(help="Stride of a bottleneck on its first 1x1 (v1, the paper) or its 3x3 (v1.5)."),
]

WeightsFolder = Annotated[
    Path, typer.Argument(help="A run folder, a weights folder, or a name (residual weights lists them).")
]
DatasetName = Annotated[
    str | None, typer.Option("--dataset", help="Dataset (default: what the network was trained on).")
]
Views = Annotated[
    Literal["center", "ten-crop", "multi-scale"] | None,
    typer.Option(help="What of each image in a file is looked at (default: center)."),
]
ViewSize = Annotated[
    int | None,
    typer.Option(
        min=1, max=SIDE, help="Side of the network's input (default: what it was trained on, as 224)."
    ),
]
ViewCrop = Annotated[
    int | None,
    typer.Option(min=1, max=SIDE, help="Side of the crops, if it is not that of the network's input."),
]
ViewScales = Annotated[
    str | None,
    typer.Option(
        metavar="SIDE,...",
        help="Shorter sides that images are resized to (default: 256; multi-scale 224,256,384,480,640).",
    ),
]
Precision = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(help="bfloat16 is about twice as fast where there are instructions for it, and less exact."),
]


@dataclass(frozen=True)
class EvaluationAsked:
    """What a classifier is to be tested on, and how, as it was asked for."""

    dataset: Annotated[
        str | None,
        typer.Option(
            help="cifar10, digits, or the word folder, whose images are in --data-dir (default: what the "
            "network was trained on)."
        ),
    ] = None
    split: Annotated[
        str,
        typer.Option(
            metavar="<test|train>", help="Split of the dataset; test is a folder's val, or what was held out."
        ),
    ] = "test"
    data_dir: TestDataDir = None
    views: Views = None
    size: ViewSize = None
    crop: ViewCrop = None
    scales: ViewScales = None
    save_scores: Annotated[
        Path | None, typer.Option(help="Keep the softmax scores in this new .safetensors file.")
    ] = None
    precision: Precision = "float32"
    device: Device = "auto"
    as_json: Json = False

    def options(self) -> "EvaluationOptions":
        """Return the options of an evaluation, after a look at where scores are to be saved."""
        from ..evaluation.scores import SUFFIX
        from ..files import check_new
        from ..inference.evaluation import EvaluationOptions

        if self.save_scores:
            check_new(self.save_scores, "scores", SUFFIX)
        scales = sides("--scales", self.scales)
        tell_of_precision(self.precision, self.device)
        return EvaluationOptions(
            self.dataset,
            # Which names a wrong one, and what it may mean.
            self.split,  # type: ignore[arg-type]
            self.data_dir,
            self.views,
            self.crop,
            scales,
            self.precision,
            self.size,
        )


def tell_of_precision(precision: str, device: str) -> None:
    """Say where a precision is a slow one on this machine."""
    from ..device import pick_device, slow_bfloat16
    from ..terminal import note

    if torchrun.rank() == 0:
        note(*filter(None, [slow_bfloat16(pick_device(device), precision)]))


def tell_of_unfinished(weights: Path, results: dict[str, Any] | None) -> None:
    """Say where weights that are used are those of a run that was stopped early.

    Args:
        results: what the weights say of themselves.
    """
    from ..terminal import note
    from ..training.folder import unfinished

    if torchrun.rank() == 0:
        note(*unfinished(weights, results))


def use_threads(count: int | None) -> None:
    """Compute on so many threads, where --threads says so."""
    if count is not None:
        from ..distributed import use_threads

        use_threads(count)


def only_first_rank(context: typer.Context, shared: Collection[str]) -> None:
    """Have one process do a command whose work is not shared: torchrun's others would print it again.

    Args:
        shared: the commands that are.
    """
    if torchrun.rank() != 0 and context.invoked_subcommand not in shared:
        raise typer.Exit


def takes(
    kind: type[Any], names: Collection[str] = (), **changed: Any
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Give a command the options that a dataclass declares, gathered in its argument ``asked``.

    Args:
        names: which of the options; all where none is named.
        changed: what typer is to read of an option in place of the dataclass's annotation, or its default.
    """
    known = inspect.signature(kind).parameters.values()
    options = [_changed(p, changed) for p in known if not names or p.name in names]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def command(**given: Any) -> Any:
            asked = kind(**{p.name: given.pop(p.name) for p in options})
            return function(**given, asked=asked)

        command.__name__, command.__doc__ = function.__name__, function.__doc__
        shown: list[inspect.Parameter] = []
        for parameter in inspect.signature(function).parameters.values():
            shown += options if parameter.name == "asked" else [parameter]
        # What typer reads the options from.
        signature = inspect.Signature([p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in shown])
        command.__signature__ = signature  # type: ignore[attr-defined]
        return command

    return decorate


def _changed(parameter: inspect.Parameter, changed: dict[str, Any]) -> inspect.Parameter:
    if parameter.name not in changed:
        return parameter
    new = changed[parameter.name]
    typed = get_origin(new) is Annotated
    return parameter.replace(annotation=new) if typed else parameter.replace(default=new)


def numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"{option} {text}: write numbers with commas between, as 0.5,0.5,0.5") from None


def sides(option: str, text: str | None) -> tuple[int, ...] | None:
    """Return the sides of images that an option names, None for none."""
    try:
        found = text if text is None else tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option} {text}: write whole numbers with commas between, as 224,256") from None
    if found and not all(1 <= side <= SIDE for side in found):
        raise InputError(f"{option} {text}: a side is 1 to {SIDE} pixels")
    return found


def check_figure_file(option: str, file: Path | None) -> None:
    """Raise an InputError where a figure cannot be written: before anything is measured."""
    from ..files import check_new

    if file:
        check_new(file, f"{option}: a figure", ".svg", ".png")


def write_figure(figure: "Figure", file: Path) -> None:
    """Write a figure into a new file, in the format of its suffix."""
    from ..analysis.figures import file_content
    from ..files import write_new

    write_new(file, file_content(figure, "svg" if file.suffix.lower() == ".svg" else "png"))


def find_images(named: list[str]) -> list[Path]:
    """Return the files that arguments name: each itself, those in a folder at any depth, those of a pattern.

    Raises:
        InputError: for an argument that names nothing, or a folder without images.
    """
    # A file that is named is tried whatever its name is.
    from ..data.folder import images_in, not_read
    from ..terminal import note

    files: dict[Path, None] = {}
    for name in named:
        path = Path(name)
        if path.is_dir():
            inside, left_out = images_in(path)
            if left_out:
                note(f"{path}: {not_read(left_out)}")
        elif path.exists():
            inside = [path]
        else:
            inside = [p for p in map(Path, sorted(glob.glob(name, recursive=True))) if p.is_file()]
            if not inside:
                raise InputError(f"there is no file {name}")
        files |= dict.fromkeys(inside)
    return list(files)


def drawn_files(images: list[Path], folder: Path, option: str) -> dict[Path, Path]:
    """Return the PNG file in a folder that each image is to be drawn into, where nothing is yet.

    It has the image's name; where several have it, they lie in folders as the images do.

    Raises:
        InputError: when one exists, or the folder is none or that of the images.
    """
    from ..files import refuse_existing

    # os.path: a name that is too long is no file.
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise InputError(f"{option} {folder} is a file, and a folder is meant")
    targets = {image: folder / f"{image.stem}.png" for image in images}
    if len(set(targets.values())) < len(targets):
        whole = {image: Path(os.path.abspath(image)) for image in images}
        common = os.path.commonpath([path.parent for path in whole.values()])
        below = {image: path.relative_to(common) for image, path in whole.items()}
        times = Counter(path.with_suffix("") for path in below.values())
        for image, path in below.items():
            # Two of one folder differ in their suffixes.
            name = path.stem if times[path.with_suffix("")] == 1 else path.name
            targets[image] = folder / path.parent / f"{name}.png"
    theirs = {os.path.realpath(image.parent) for image in images}
    for target in targets.values():
        if theirs & {os.path.realpath(folder), os.path.realpath(target.parent)}:
            raise InputError(f"{option} {folder} holds the images themselves; name another folder")
        refuse_existing(target)
    return targets


def nothing_read(files: Sequence[Path]) -> InputError:
    """Return the error for images of which none could be read; what is wrong with each has been said."""
    if len(files) == 1:
        return InputError(f"{files[0]} could not be read, and there is no other image")
    return InputError(f"none of the {len(files):,} images could be read")


def check_all_used(failed: int, files: Sequence[Path]) -> None:
    """Raise an InputError where images could not be used, once what was found in the others has been shown.

    Args:
        failed: how many; what is wrong with each has been said.
    """
    if failed:
        raise InputError(f"{failed:,} of {len(files):,} images could not be used, as said above")


def progress_bar(silent: bool = False) -> "AbstractContextManager[Callable[[int, int], None]]":
    """Give what shows how many images are done, and the time left, on stderr."""
    from ..terminal import counted

    return counted("images", silent=silent)


def print_errors(metrics: "Metrics", classes: int) -> None:
    typer.echo(f"  top-1 error  {metrics.top1_error:6.2f} %")
    # Of five classes none is ever wrong.
    if classes > 5:
        typer.echo(f"  top-5 error  {metrics.top5_error:6.2f} %")
    typer.echo(f"  loss         {metrics.loss:7.3f}")


def class_names(path: Path) -> list[str]:
    """Return the names in a text file, one a line.

    Raises:
        InputError: when it cannot be read, or a line before the last name is empty.
    """
    from ..class_names import class_name
    from ..files import read_text

    lines = read_text(path, "name another with --classes").rstrip().split("\n")
    names = [class_name(line.strip()) for line in lines]
    if "" in names:
        raise InputError(f"{path}: line {names.index('') + 1} is empty; write a class name a line")
    return names
