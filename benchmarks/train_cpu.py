"""Training throughput on a CPU, against the loop that people use and against the machine's ceiling.

ResNet-20 on images of CIFAR-10's size in memory, or ResNet-18 on JPEG files of Tiny ImageNet's, in batches of
128. Every measurement has a fresh process of its own, so
that threads, memory and caches do not mix, and the sides take turns, so that a machine that slows down (other
users, heat) slows down all of them. See README.md beside this file.
"""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import torch
import torch.nn.functional as F
import typer
from paired import (
    check_new_file,
    environment,
    in_new_process,
    matrix_product_rate,
    print_checks,
    run,
    spread,
    worthwhile,
    write_json,
)
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from residual.errors import InputError, nearest

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from residual.data.dataset import Dataset
    from residual.data.resident import ResidentBatches
    from residual.data.stream import StreamBatches
    from residual.recipes import Recipe

    Batches = ResidentBatches | StreamBatches

T = TypeVar("T")


@dataclass(frozen=True)
class Case:
    """A network that is trained.

    Attributes:
        recipe: ours.
        title: of the table.
        wanted: the ratio to the usual loop that each side of ours is held against.
        sides: that can be measured.
    """

    recipe: str
    title: str
    wanted: dict[str, float]
    sides: tuple[str, ...]


CASES = {
    "resnet20": Case(
        "cifar10-resnet20",
        "ResNet-20, 32 x 32",
        {"ours": 1.4, "bfloat16": 2.0},
        ("ours", "bfloat16", "usual", "compiled"),
    ),
    "resnet18": Case(
        "tiny-imagenet-resnet18",
        "ResNet-18, JPEG files of 64 x 64",
        {"ours": 1.5, "bfloat16": 2.2},
        ("ours", "bfloat16", "usual"),
    ),
}

#: The sides that are measured where no others are asked for.
USUAL_SIDES = ",".join(worthwhile(("ours", "bfloat16", "usual")))

#: What is measured, and what each side is called in the tables.
SIDES = {
    "ours": "residual train",
    "bfloat16": "in bfloat16",
    "usual": "usual loop",
    "compiled": "usual loop, compiled",
}

#: The sides that are ours, and the numbers that their convolutions multiply.
DTYPES = {"ours": torch.float32, "bfloat16": torch.bfloat16}

#: Targets that the result is held against, beside ``Case.wanted``.
WANTED_FRACTION = 0.5
ALLOWED_BYTES = 1.5e9


@dataclass(frozen=True)
class Settings:
    """What to measure and how long, and on which images: random ones where ``data_dir`` is None."""

    network: str
    warmup: int
    iterations: int
    workers: int
    data_dir: Path | None

    @property
    def case(self) -> Case:
        return CASES[self.network]


@dataclass(frozen=True)
class Measurement:
    """One side, once.

    Attributes:
        images_per_second: over the timed iterations, from the stored images to the updated weights.
        first_step_seconds: from the start of the process to the end of its first step: imports, reading the
            images, starting the workers, compiling.
        peak_bytes: of the process that trains.
        worker_peak_bytes: of the largest of its child processes (shared pages counted), 0 without any.
    """

    images_per_second: float
    first_step_seconds: float
    peak_bytes: int
    worker_peak_bytes: int


# What `residual train` does


def ours(settings: Settings, precision: str = "tf32") -> Iterator[int]:
    """Train as ``residual.run.train`` does, and give the number of images after each step."""
    # A side imports what it needs when it runs: start-up and memory are each side's own.
    from residual import recipes
    from residual.device import keep_freed_memory
    from residual.distributed import World
    from residual.models import build_model
    from residual.randomness import Stream, mix
    from residual.training.classification import ErrorMeter
    from residual.training.schedule import learning_rate
    from residual.training.sgd import SGD
    from residual.training.step import Step

    recipe = recipes.find(settings.case.recipe)
    device, world = torch.device("cpu"), World()
    keep_freed_memory()
    batches, classes = our_batches(recipe, settings.data_dir, device)
    model = build_model(recipe.model.name, classes=classes, **recipe.model.options())
    model = model.to(memory_format=torch.channels_last).train()
    optimizer = SGD(model, recipe.optimizer.momentum, recipe.optimizer.weight_decay, recipe.optimizer.form)
    step = Step(model, optimizer, recipe.batch.bn_group, world, ErrorMeter(device), precision)
    for iteration in range(recipe.schedule.iterations):
        torch.manual_seed(mix(recipe.seed, Stream.DROPOUT, iteration, world.rank))
        inputs, targets = batches(iteration)
        step(inputs, targets, learning_rate(recipe.schedule, iteration), iteration)
        yield len(targets)


def our_batches(recipe: "Recipe", data_dir: Path | None, device: torch.device) -> "tuple[Batches, int]":
    """Return the recipe's training batches, and of how many classes they are.

    Means and colours are made up: which ones makes no difference to the speed.
    """
    from residual.data.colour import ColourNoise
    from residual.data.crops import ScaleCrop
    from residual.data.folder import index_folder
    from residual.data.resident import ResidentBatches
    from residual.data.stream import StreamBatches
    from residual.models.preprocessing import Preprocessing

    size, seed, folder = recipe.batch.size, recipe.seed, recipe.data.folder
    if folder is None:
        dataset = dataset_of(data_dir)
        preprocessing = Preprocessing(dataset.images[:1000].float().mean(dim=0) / 255)
        flip = recipe.data.flip
        in_memory = ResidentBatches(dataset, preprocessing, size, recipe.data.pad, flip, seed, device)
        return in_memory, len(dataset.classes)
    assert data_dir is not None
    index = index_folder(data_dir, "train")
    preprocessing = Preprocessing(torch.full((3, folder.size, folder.size), 0.45))
    crop = ScaleCrop(folder.size, *folder.shorter_side)
    noise = ColourNoise(torch.tensor([0.2, 0.02, 0.004]), torch.eye(3), folder.colour_noise)
    streamed = StreamBatches(index, crop, preprocessing, size, recipe.data.flip, noise, seed, device)
    return streamed, len(index.classes)


# The loop that people use: nothing of it comes from residual


class UsualBlock(nn.Module):
    """The block of the public CIFAR-10 ResNets, option A."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.added = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.added:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.added // 2, self.added // 2))
        return F.relu(out + x)


class UsualResNet(nn.Module):
    """The public CIFAR-10 ResNet of 6n+2 layers."""

    def __init__(self, n: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        widths = (16,) * n + (32,) * n + (64,) * n
        self.blocks = nn.Sequential(
            *(UsualBlock(a, b, b // a) for a, b in zip((16, *widths[:-1]), widths, strict=True))
        )
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.blocks(out)
        out = F.avg_pool2d(out, out.size(3)).flatten(1)
        return self.linear(out)


class UsualDataset(torch.utils.data.Dataset[Any]):
    """As torchvision.datasets.CIFAR10: an array in memory, from which each item becomes a PIL image."""

    def __init__(self, images: Tensor, targets: Tensor, transform: Callable[[Any], Tensor]) -> None:
        self.data = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.targets = targets.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image

        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def usual_loader(settings: Settings, pin_memory: bool = False) -> "DataLoader[tuple[Tensor, Tensor]]":
    from torchvision import transforms

    transform = transforms.Compose(
        [
            transforms.RandomCrop(32, 4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        ]
    )
    dataset = dataset_of(settings.data_dir)
    return torch.utils.data.DataLoader(
        UsualDataset(dataset.images, dataset.targets, transform),
        batch_size=128,
        shuffle=True,
        num_workers=settings.workers,
        # In a process that was spawned they would be spawned too, one after the other, for seconds each.
        multiprocessing_context="fork" if settings.workers else None,
        persistent_workers=settings.workers > 0,
        pin_memory=pin_memory,
        drop_last=True,
    )


def usual_files(settings: Settings) -> "DataLoader[tuple[Tensor, Tensor]]":
    """As torchvision's references for classification: ImageFolder, PIL, a rectangle resized to the square."""
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    assert settings.data_dir is not None
    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(64),
            transforms.RandomHorizontalFlip(),
            transforms.PILToTensor(),
            transforms.ConvertImageDtype(torch.float),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    return torch.utils.data.DataLoader(
        ImageFolder(str(settings.data_dir / "train"), transform),
        batch_size=128,
        shuffle=True,
        num_workers=settings.workers,
        multiprocessing_context="fork" if settings.workers else None,
        persistent_workers=settings.workers > 0,
        drop_last=True,
    )


def usual(settings: Settings, compiled: bool = False) -> Iterator[int]:
    """Train as popular repositories do, and give the number of images after each step."""
    layout = torch.channels_last if compiled else torch.contiguous_format
    network: nn.Module
    if settings.network == "resnet18":
        from torchvision.models import resnet18

        loader, network = usual_files(settings), resnet18(num_classes=200)
    else:
        loader, network = usual_loader(settings), UsualResNet()
    network = network.to(memory_format=layout).train()
    model: Callable[[Tensor], Tensor] = torch.compile(network) if compiled else network
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    total_loss, correct = 0.0, 0
    for inputs, targets in chain.from_iterable(repeat(loader)):
        outputs = model(inputs.to(memory_format=layout))
        loss = criterion(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
        correct += (outputs.argmax(1) == targets).sum().item()
        yield len(targets)


def compiled(settings: Settings) -> Iterator[int]:
    """The usual loop with the two changes that make an eager network faster on a CPU."""
    # Otherwise the second round would find what the first one compiled.
    os.environ["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    yield from usual(settings, compiled=True)


# Measuring


def dataset_of(data_dir: Path | None) -> "Dataset":
    """Return the training part of CIFAR-10, or as many random images of its size."""
    from residual.data import load_dataset
    from residual.data.dataset import Dataset

    if data_dir is not None:
        return load_dataset("cifar10", "train", data_dir)
    count, random = 50_000, torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=random)
    targets = torch.randint(10, (count,), generator=random)
    return Dataset("random", tuple("0123456789"), images, targets, torch.arange(count))


def random_files(folder: Path, classes: int = 200, images: int = 20) -> Path:
    """Write JPEG files of Tiny ImageNet's size and weight, train/CLASS/NN.JPEG, and return the folder."""
    import numpy as np
    from PIL import Image

    random = np.random.default_rng(0)
    for k in range(classes):
        (folder / "train" / f"{k:03d}").mkdir(parents=True)
        for number in range(images):
            coarse = random.integers(256, size=(12, 12, 3), dtype=np.uint8)
            image = np.asarray(Image.fromarray(coarse).resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
            image += random.integers(-12, 13, size=image.shape)
            file = folder / "train" / f"{k:03d}" / f"{number:02d}.JPEG"
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(file)
    return folder


def profile(settings: Settings, precision: str, iterations: int = 4) -> dict[str, float]:
    """Return where the processor's time goes in our steps, in ms an image and by kind of work.

    On one thread, so that no waiting for others counts; the images' way to their batch apart from the steps.
    """
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    from residual import recipes

    torch.set_num_threads(1)
    recipe = recipes.find(settings.case.recipe)
    batches, _ = our_batches(recipe, settings.data_dir, torch.device("cpu"))
    batches(0)
    images = iterations * recipe.batch.size
    start = time.process_time()
    for iteration in range(1, 1 + iterations):
        batches(iteration)
    found = {"batches: decoding, crops, colours": 1000 * (time.process_time() - start) / images}
    steps = ours(settings, precision)
    for _ in range(2):
        next(steps)
    with record(activities=[ProfilerActivity.CPU]) as recorded:
        for _ in range(iterations):
            next(steps)
    for event in recorded.key_averages():
        kind = next((kind for kind, words in KINDS.items() if any(w in event.key for w in words)), "other")
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1000 / images
    return {kind: round(milliseconds, 3) for kind, milliseconds in found.items()}


#: What PyTorch's profiler calls the kernels of each kind of work; the first that fits.
KINDS = {
    "convolutions backwards": ("convolution_backward",),
    "convolutions forwards": ("mkldnn_convolution",),
    "BN": ("batch_norm",),
    "pooling": ("pool2d",),
    "update, sums of gradients": ("_foreach",),
    "copies and casts": ("copy_", "_to_copy", "clone", "fill_", "cat"),
    "ReLU and additions": ("add_", "clamp_min", "threshold", "relu"),
}


def measure(side: str, settings: Settings, started: float) -> Measurement:
    """Run one side in this process, which ``started`` then (time.monotonic, one clock for all processes)."""
    # Importing PyTorch has already started, and ended, a child.
    before = getrusage(RUSAGE_CHILDREN).ru_maxrss
    begin: dict[str, Callable[[Settings], Iterator[int]]] = {
        "ours": ours,
        "bfloat16": partial(ours, precision="bfloat16"),
        "usual": usual,
        "compiled": compiled,
    }
    steps = begin[side](settings)
    next(steps)
    first_step = time.monotonic() - started
    for _ in range(settings.warmup - 1):
        next(steps)
    start = time.perf_counter()
    images = sum(next(steps) for _ in range(settings.iterations))
    seconds = time.perf_counter() - start
    # Ends the workers; a child's memory is counted when it has ended.
    steps.close()  # type: ignore[attr-defined]
    peak, children = (getrusage(who).ru_maxrss for who in (RUSAGE_SELF, RUSAGE_CHILDREN))
    return Measurement(images / seconds, first_step, peak * 1024, children * 1024 if children > before else 0)


def flop_per_image(case: Case) -> int:
    """Return what a training step computes per image.

    A multiply-add is two operations; the backward pass is two products of the forward pass's size, one for
    the weights' gradients and one for the inputs'.
    """
    from residual import recipes
    from residual.analysis.complexity import complexity
    from residual.models import build_model

    recipe = recipes.find(case.recipe)
    size, classes = (recipe.data.folder.size, 200) if recipe.data.folder else (32, 10)
    model = build_model(recipe.model.name, classes=classes, **recipe.model.options())
    return 3 * 2 * complexity(model, (3, size, size)).multiply_adds


def run_round(number: int, sides: list[str], settings: Settings, flop: int) -> dict[str, Any]:
    """Measure the ceilings and each side once, in turn."""
    mine = [side for side in sides if side in DTYPES]
    ceilings = {side: in_new_process(partial(matrix_product_rate, DTYPES[side])) / flop for side in mine}
    found = {side: in_new_process(partial(measure, side, settings, time.monotonic())) for side in sides}
    speeds = {side: m.images_per_second for side, m in found.items()}
    return {
        "round": number,
        "ceiling_images_per_second": ceilings,
        "sides": {side: asdict(m) for side, m in found.items()},
        "fraction_of_ceiling": {side: speeds[side] / ceilings[side] for side in mine},
        "ratio": {
            side: {other: speeds[side] / speeds[other] for other in sides if other not in DTYPES}
            for side in mine
        },
    }


# Reporting


def summarize(rounds: list[dict[str, Any]], sides: list[str]) -> dict[str, Any]:
    """Return medians and extremes over the rounds; a ratio is taken within a round, before the median."""

    def over(side: str, field: str) -> dict[str, float]:
        return spread([r["sides"][side][field] for r in rounds])

    return {
        "sides": {s: {field: over(s, field) for field in Measurement.__annotations__} for s in sides},
        **{
            key: {side: spread([r[key][side] for r in rounds]) for side in rounds[0][key]}
            for key in ("ceiling_images_per_second", "fraction_of_ceiling")
        },
        "ratio": {
            side: {other: spread([r["ratio"][side][other] for r in rounds]) for other in others}
            for side, others in rounds[0]["ratio"].items()
        },
    }


def checks(summary: dict[str, Any], case: Case) -> dict[str, bool]:
    """Hold the medians, and the largest memory, against the targets."""
    found = {}
    for side, ratios in summary["ratio"].items():
        fraction, peak = summary["fraction_of_ceiling"][side], summary["sides"][side]["peak_bytes"]
        name = SIDES[side]
        found[f"{name}: at least {WANTED_FRACTION} of its ceiling"] = fraction["median"] >= WANTED_FRACTION
        found[f"{name}: peak memory under 1.5 GB"] = peak["max"] < ALLOWED_BYTES
        if "usual" in ratios:
            reached = ratios["usual"]["median"] >= case.wanted[side]
            found[f"{name}: at least {case.wanted[side]} times the usual loop"] = reached
    return found


def show(console: Console, result: dict[str, Any]) -> None:
    """Print the summary as a table, and the checks."""
    summary = result["summary"]

    def cell(values: dict[str, float], unit: float = 1, digits: int = 0) -> str:
        middle, low, high = (f"{values[k] / unit:,.{digits}f}" for k in ("median", "min", "max"))
        return f"{middle}\n{low}-{high}"

    title = CASES[result["settings"]["network"]].title
    table = Table(title=f"{title}, batch 128, {result['images']}: median, min-max", show_lines=True)
    table.add_column("", no_wrap=True)
    for heading in ("images/s", "it / usual", "of its ceiling", "first step, s", "peak, GB"):
        table.add_column(heading, justify="right", min_width=9)
    ceilings = summary["ceiling_images_per_second"]
    for side, values in summary["sides"].items():
        ratios = summary["ratio"].get(side, {})
        worker = values["worker_peak_bytes"]["max"]
        fraction = summary["fraction_of_ceiling"].get(side)
        table.add_row(
            SIDES[side],
            cell(values["images_per_second"]),
            cell(ratios["usual"], digits=2) if "usual" in ratios else "",
            f"{fraction['median']:.2f}\nof {ceilings[side]['median']:,.0f}" if fraction else "",
            cell(values["first_step_seconds"], digits=1),
            cell(values["peak_bytes"], 1e9, digits=2) + (f"\nworker {worker / 1e9:.1f}" if worker else ""),
        )
    console.print(table)
    for precision, kinds in result["profile"].items():
        table = Table(title=f"Processor time, {precision}, one thread")
        table.add_column("")
        table.add_column("ms an image", justify="right")
        for kind, milliseconds in kinds.items():
            table.add_row(kind, f"{milliseconds:.3f}")
        console.print(table)
    print_checks(console, result["checks"])


def benchmark(
    network: Annotated[
        Literal["resnet20", "resnet18"],
        typer.Option(help="resnet20 on CIFAR-10's images in memory, or resnet18 on Tiny ImageNet's files."),
    ] = "resnet20",
    sides: Annotated[str, typer.Option(help=f"Of {', '.join(SIDES)}, with commas between.")] = USUAL_SIDES,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each side gets.")] = 5,
    iterations: Annotated[int, typer.Option(min=1, help="Timed iterations in a turn.")] = 40,
    warmup: Annotated[int, typer.Option(min=1, help="Iterations before those.")] = 8,
    workers: Annotated[int, typer.Option(min=0, help="The usual loop's DataLoader workers.")] = 2,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Folder with CIFAR-10, or with train/ (default: random images of that size)."),
    ] = None,
    profiled: Annotated[
        bool, typer.Option("--profile", help="Also measure where the processor's time goes.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="JSON file to write; it must be new.")] = None,
) -> None:
    """Measure training throughput on the CPU, in turns with the loop that people use."""
    from residual import recipes

    chosen = [side.strip() for side in sides.split(",")]
    case = CASES[network]
    _check(case, chosen, out)
    described = environment("cpu")
    flop = flop_per_image(case)
    with TemporaryDirectory() as folder:
        name, place = "random", data_dir
        if network == "resnet20":
            name = dataset_of(data_dir).name  # also finds out whether they can be read
        elif data_dir is None:
            place = random_files(Path(folder))
        else:
            name = data_dir.name
        settings = Settings(network, warmup, iterations, workers, place)
        found, profiles = _measured(chosen, rounds, settings, flop, profiled)
    summary = summarize(found, chosen)
    result = {
        "benchmark": "train_cpu",
        "environment": described,
        "recipe": recipes.find(case.recipe).model_dump(mode="json"),
        "images": f"{name} images" if data_dir is None else name,
        "settings": asdict(settings) | {"data_dir": data_dir and str(data_dir), "rounds": rounds},
        "flop_per_image": flop,
        "summary": summary,
        "checks": checks(summary, case),
        "profile": profiles,
        "rounds": found,
    }
    show(Console(highlight=False), result)
    write_json(result, out)


def _measured(
    sides: list[str], rounds: int, settings: Settings, flop: int, profiled: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return what each round has measured, and the profile of each of our sides."""
    progress = Console(stderr=True, highlight=False)
    found = []
    for number in range(1, rounds + 1):
        found.append(run_round(number, sides, settings, flop))
        speeds = [f"{SIDES[s]} {m['images_per_second']:.0f}" for s, m in found[-1]["sides"].items()]
        progress.print(f"round {number} of {rounds}, images/s: {', '.join(speeds)}", soft_wrap=True)
    precisions = {"ours": "float32", "bfloat16": "bfloat16"}
    return found, {
        precision: in_new_process(partial(profile, settings, precision))
        for side, precision in precisions.items()
        if profiled and side in sides
    }


def _check(case: Case, sides: list[str], out: Path | None) -> None:
    """Find what is wrong with the input before minutes are spent on measuring.

    Raises:
        InputError: for unknown sides, a missing compiler, and as ``check_new_file``.
    """
    for side in sides:
        if side not in case.sides:
            raise InputError(f"--sides: there is no side {side!r}{nearest(side, case.sides)}")
    if "ours" not in sides or len(set(sides)) < len(sides):
        named = ",".join(sides)
        raise InputError(f"--sides {named}: name each side once, and ours, which the others are held against")
    if "compiled" in sides and not shutil.which(os.environ.get("CXX", "g++")):
        raise InputError("--sides compiled: torch.compile needs a C++ compiler; install g++ or leave it out")
    check_new_file(out)


if __name__ == "__main__":
    run(
        benchmark,
        """\b
Examples:
  python benchmarks/train_cpu.py
  python benchmarks/train_cpu.py --out results/benchmarks/train_cpu.json
  python benchmarks/train_cpu.py --sides ours,bfloat16,usual,compiled --rounds 3
  python benchmarks/train_cpu.py --data-dir ~/data --workers 4
  python benchmarks/train_cpu.py --network resnet18 --profile --out results/benchmarks/train_cpu_resnet18.json
""",
    )
