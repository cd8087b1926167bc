"""How many training images a second are prepared, from JPEG files to a batch, against PIL transforms.

The paper's augmentation: shorter side sampled in [256, 480], a random 224 x 224 crop or its flip,
mean subtracted, colour noise. One core for each side, by its own time; or, with ``--workers``, as many as are
asked for, by the clock. The sides take turns. See README.md beside this file.
"""

import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
from paired import (
    check_new_file,
    environment,
    in_new_process,
    peak_bytes,
    print_checks,
    run,
    spread,
    write_json,
)
from rich.console import Console
from rich.table import Table

from residual.errors import InputError

WANTED_RATIO = {"scale": 2.5, "resized": 1.8}
#: Sides of one core, and of several.
ONE = ("ours", "usual", "decoding")
SEVERAL = ("ours", "threads", "usual")


@dataclass(frozen=True)
class Measurement:
    """One side, once: images a second, of a core's time or by the clock, and peak memory without workers'."""

    images_per_second: float
    peak_bytes: int


@dataclass(frozen=True)
class Settings:
    """What is prepared, and by how many: ``workers`` None for one core."""

    batch: int
    batches: int
    size: int
    workers: int | None

    @property
    def shorter_side(self) -> tuple[int, int]:
        """As 256 to 480 are to 224."""
        return round(self.size * 256 / 224), round(self.size * 480 / 224)


def ours(files: list[Path], crop: str, settings: Settings, helped: bool = True) -> Callable[[], None]:
    """Return what prepares a batch as ``residual train`` does, without its helpers if so asked."""
    import torch

    from residual.data import helpers
    from residual.data.colour import ColourNoise
    from residual.data.crops import ResizedCrop, ScaleCrop
    from residual.data.folder import FolderIndex
    from residual.data.stream import StreamBatches
    from residual.device import keep_freed_memory
    from residual.models.preprocessing import Preprocessing

    keep_freed_memory()
    names = tuple(str(file) for file in files)
    index = FolderIndex("files", ("one",), names, torch.zeros(len(names), dtype=torch.int64), Path("/"))
    scale, size = crop == "scale", settings.size
    batches = StreamBatches(
        index,
        ScaleCrop(size, *settings.shorter_side) if scale else ResizedCrop(size),
        Preprocessing(torch.full((3, size, size) if scale else (3,), 0.45)),
        settings.batch,
        True,
        ColourNoise(torch.tensor([0.003, 0.02, 0.2]), torch.eye(3)) if scale else None,
        0,
        torch.device("cpu"),
        workers=settings.workers or 1,
    )
    iterations = iter(range(10**9))
    number = settings.workers if helped and settings.workers else 0
    helpers.begin(number)
    started = time.monotonic()
    while number and not helpers.ready():
        if time.monotonic() - started > 120:
            raise RuntimeError("no helper begins on this machine: what is measured would be threads alone")
        batches(next(iterations))
    return lambda: batches(next(iterations)) and None


def usual(files: list[Path], crop: str, settings: Settings) -> Callable[[], None]:
    """Return what prepares a batch as training scripts with torchvision's transforms do."""
    import random

    import torch
    from PIL import Image
    from torchvision import transforms

    class Resize:
        def __call__(self, image: Image.Image) -> Image.Image:
            return transforms.functional.resize(image, random.randint(*settings.shorter_side))

    size = settings.size
    first = (
        [Resize(), transforms.RandomCrop(size)] if crop == "scale" else [transforms.RandomResizedCrop(size)]
    )
    transform = transforms.Compose(
        [
            *first,
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )

    class Files(torch.utils.data.Dataset[torch.Tensor]):
        def __len__(self) -> int:
            return settings.batch * 100_000

        def __getitem__(self, index: int) -> torch.Tensor:
            with random.choice(files).open("rb") as opened:
                prepared: torch.Tensor = transform(Image.open(opened).convert("RGB"))
            return prepared

    loader = iter(
        torch.utils.data.DataLoader(
            Files(),
            settings.batch,
            num_workers=settings.workers or 0,
            multiprocessing_context="fork" if settings.workers else None,
        )
    )

    def prepare() -> None:
        next(loader)

    return prepare


def decoding(files: list[Path], crop: str, settings: Settings) -> Callable[[], None]:
    """Return what decodes a batch at full size, and does nothing else."""
    import random

    from residual.data.images import decode

    def prepare() -> None:
        for file in random.choices(files, k=settings.batch):
            decode(file)

    return prepare


def measure(side: str, files: list[Path], crop: str, settings: Settings) -> Measurement:
    """Run one side in this process."""
    if settings.workers is None:
        # Threads of a side's own would be other cores: a core is what is asked about.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    import torch

    torch.set_num_threads(1)
    sides: dict[str, Callable[..., Callable[[], None]]] = {
        "ours": ours,
        "threads": partial(ours, helped=False),
        "usual": usual,
        "decoding": decoding,
    }
    prepare = sides[side](files, crop, settings)
    for _ in range(4):  # what is decoded ahead is then as much at the beginning as at the end
        prepare()
    # A core's own time, of all threads: what others do on the machine meanwhile does not count.
    clock = time.process_time if settings.workers is None else time.perf_counter
    started = clock()
    for _ in range(settings.batches):
        prepare()
    seconds = clock() - started
    return Measurement(settings.batch * settings.batches / seconds, peak_bytes())


def benchmark(
    images: Annotated[Path, typer.Argument(help="Folder with JPEG images, at any depth.")],
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each side gets.")] = 5,
    batch: Annotated[int, typer.Option(min=1, help="Images of a batch.")] = 32,
    batches: Annotated[int, typer.Option(min=1, help="Timed batches in a turn.")] = 12,
    size: Annotated[
        int, typer.Option(min=16, help="Side of the crops; shorter sides as 256 to 480 to 224.")
    ] = 224,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="Threads and helpers, and the DataLoader's workers, by the clock; else one core."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file to write; it must be new.")] = None,
) -> None:
    """Measure the preparation of training images, in turns with PIL transforms."""
    check_new_file(out)
    files = sorted(p.resolve() for p in images.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise InputError(f"{images} holds no JPEG files")
    about = environment("cpu")
    found: dict[str, Any] = {}
    settings = Settings(batch, batches, size, workers)
    progress = Console(stderr=True, highlight=False)
    for crop in ("scale", "resized"):
        turns: dict[str, list[Measurement]] = {side: [] for side in (SEVERAL if workers else ONE)}
        for number in range(1, rounds + 1):
            for side, measured in turns.items():
                measured.append(in_new_process(partial(measure, side, files, crop, settings)))
            speeds = ", ".join(f"{side} {m[-1].images_per_second:.0f}" for side, m in turns.items())
            progress.print(f"{crop}, round {number} of {rounds}, images/s: {speeds}")
        ratios = [
            a.images_per_second / b.images_per_second
            for a, b in zip(turns["ours"], turns["usual"], strict=True)
        ]
        found[crop] = {
            "ratio": spread(ratios),
            "rounds": {s: [asdict(m) for m in t] for s, t in turns.items()},
        }
    show(found, workers)
    result = {
        "benchmark": "input_pipeline",
        "environment": about,
        "images": len(files),
        "bytes_per_image": sum(f.stat().st_size for f in files) // len(files),
        "settings": {"rounds": rounds, **asdict(settings)},
        "augmentations": found,
    }
    write_json(result, out)


def show(found: dict[str, Any], workers: int | None) -> None:
    """Print medians and ratios, and whether the target of one core holds."""
    where = f"{workers} workers" if workers else "one core"
    third = "threads" if workers else "decoding"
    table = Table(title=f"training images from JPEG files, {where}: median")
    for heading in (
        "augmentation",
        "ours, images/s",
        "usual",
        "ours / usual",
        "min-max",
        "threads alone" if workers else "decoding alone",
        "peak, GB" if workers is None else "without workers, GB",
        "usual, GB",
    ):
        table.add_column(heading, justify="left" if heading == "augmentation" else "right")
    for crop, values in found.items():
        speeds = {s: spread([m["images_per_second"] for m in t]) for s, t in values["rounds"].items()}
        peaks = {s: max(m["peak_bytes"] for m in t) / 1e9 for s, t in values["rounds"].items()}
        ratio = values["ratio"]
        table.add_row(
            {"scale": "the paper's", "resized": "resized crop"}[crop],
            *(f"{speeds[side]['median']:.0f}" for side in ("ours", "usual")),
            f"{ratio['median']:.2f}",
            f"{ratio['min']:.2f}-{ratio['max']:.2f}",
            f"{speeds[third]['median']:.0f}",
            *(f"{peaks[side]:.2f}" for side in ("ours", "usual")),
        )
    console = Console(highlight=False)
    console.print(table)
    if workers is None:
        print_checks(
            console,
            {
                f"{crop}: at least {least} times the usual transforms": found[crop]["ratio"]["median"]
                >= least
                for crop, least in WANTED_RATIO.items()
            },
        )


if __name__ == "__main__":
    run(
        benchmark,
        """\b
Examples:
  python benchmarks/input_pipeline.py ~/imagenet/val
  python benchmarks/input_pipeline.py ~/imagenet/val --out results/benchmarks/input_pipeline.json
  python benchmarks/input_pipeline.py ~/tiny-imagenet-200/val --size 64 --batch 128 --workers 16
""",
    )
