"""Training throughput on a GPU, against the loop that people use, and against what the GPU could do.

CIFAR-10 networks, images of CIFAR-10's size, batches of 128. Every measurement has a fresh process of its
own, and the sides take turns. See README.md beside this file.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from paired import check_new_file, environment, in_new_process, print_checks, run, spread, write_json
from rich.console import Console
from rich.table import Table
from torch import nn
from train_cpu import (
    Settings,
    UsualResNet,
    dataset_of,
    usual_loader,
)

from residual.errors import InputError

#: Ratios that the results are held against, by depth.
WANTED_RATIO = {20: 8.0, 110: 4.0}
#: Seconds in which a whole run of 64,000 iterations is to end, by depth.
WANTED_SECONDS = {20: 60.0, 56: 150.0, 110: 300.0, 1202: 2400.0}
ITERATIONS = 64_000


@dataclass(frozen=True)
class Measurement:
    """One side, once.

    Attributes:
        images_per_second: over the timed iterations, from the stored images to the updated weights.
        first_step_seconds: from the start of the process until iterations run at full speed: imports,
            reading the images, starting workers, compiling, recording.
        peak_bytes: of the GPU's memory; 0 on a CPU.
    """

    images_per_second: float
    first_step_seconds: float
    peak_bytes: int


def ours(depth: int, precision: str, eager: bool, settings: Settings, device: torch.device) -> Iterator[int]:
    """Iterate as ``residual train`` does, and give the number of images of each iteration."""
    from residual import recipes
    from residual.data.resident import ResidentBatches
    from residual.device import arithmetic
    from residual.distributed import World
    from residual.models import build_model
    from residual.models.preprocessing import Preprocessing
    from residual.training.classification import classification_work
    from residual.training.schedule import learning_rate
    from residual.training.sgd import SGD

    recipe = recipes.override(recipes.find(f"cifar10-resnet{depth}"), [f"precision={precision}"])
    dataset = dataset_of(settings.data_dir).to(device)
    model = (
        build_model(recipe.model.name, classes=10).to(device).to(memory_format=torch.channels_last).train()
    )
    preprocessing = Preprocessing(dataset.images[:1000].float().mean(dim=0) / 255).to(device)
    batches = ResidentBatches(
        dataset, preprocessing, recipe.batch.size, recipe.data.pad, recipe.data.flip, recipe.seed, device
    )
    work = classification_work(model, batches, recipe, World(), device, eager)
    optimizer = SGD(model, recipe.optimizer.momentum, recipe.optimizer.weight_decay, recipe.optimizer.form)
    iterate = work.begin(optimizer, lambda iteration: learning_rate(recipe.schedule, iteration))
    with arithmetic(device, recipe.precision, deterministic=False, one_size=True):
        for iteration in range(recipe.schedule.iterations):
            iterate(iteration)
            if getattr(iterate, "fell_back", False):
                raise RuntimeError(
                    "compiling and recording failed: what is measured would be kernel by kernel"
                )
            yield recipe.batch.size


def usual(depth: int, settings: Settings, device: torch.device) -> Iterator[int]:
    """Iterate as popular repositories do on a GPU."""
    torch.backends.cudnn.benchmark = True
    loader = usual_loader(settings, pin_memory=device.type == "cuda")
    network = UsualResNet((depth - 2) // 6).to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    total_loss, correct = 0.0, 0
    for inputs, targets in chain.from_iterable(repeat(loader)):
        inputs, targets = inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True)
        outputs = network(inputs)
        loss = criterion(outputs, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total_loss += loss.item()
        correct += (outputs.argmax(1) == targets).sum().item()
        yield len(targets)


#: ``ours-combo``: TF32, the compiler joining small kernels that do not depend on each other, which
#: ``residual train`` does not ask for before a GPU has shown that it pays.
SIDES = ("ours-tf32", "ours-bfloat16", "ours-eager", "ours-combo", "usual")


def start(side: str, depth: int, settings: Settings, device: torch.device) -> Iterator[int]:
    """Return a side's iterations."""
    if side == "usual":
        return usual(depth, settings, device)
    if side == "ours-combo":
        import torch._inductor.config

        torch._inductor.config.combo_kernels = True
    precision = "bfloat16" if side == "ours-bfloat16" else "tf32"
    return ours(depth, precision, side == "ours-eager", settings, device)


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(side: str, depth: int, settings: Settings, device: torch.device, started: float) -> Measurement:
    """Run one side in this process, which ``started`` then (time.monotonic)."""
    steps = start(side, depth, settings, device)
    for _ in range(settings.warmup):
        next(steps)
    wait(device)
    first = time.monotonic() - started
    began = time.perf_counter()
    images = sum(next(steps) for _ in range(settings.iterations))
    wait(device)
    seconds = time.perf_counter() - began
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return Measurement(images / seconds, first, peak)


def profile(side: str, depth: int, settings: Settings, device: torch.device) -> str:
    """Return the kernels of some iterations, the longest first, as a table."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as record

    steps = start(side, depth, settings, device)
    for _ in range(settings.warmup):
        next(steps)
    wait(device)
    gpu = device.type == "cuda"
    with record(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]) as recorded:
        for _ in range(min(20, settings.iterations)):
            next(steps)
        wait(device)
    order = "self_device_time_total" if gpu else "self_cpu_time_total"
    return recorded.key_averages().table(sort_by=order, row_limit=40)


def ceilings(device: torch.device) -> dict[str, float]:
    """Return the device's measured bandwidth (bytes/s) and rates of matrix products (FLOP/s)."""

    def seconds(work: Callable[[], object], times: int = 10) -> float:
        work()
        best = float("inf")
        for _ in range(5):
            wait(device)
            began = time.perf_counter()
            for _ in range(times):
                work()
            wait(device)
            best = min(best, (time.perf_counter() - began) / times)
        return best

    size, side = (2**30, 8192) if device.type == "cuda" else (2**24, 256)
    a = torch.empty(size, dtype=torch.uint8, device=device)
    b = torch.empty_like(a)
    found = {"bytes_per_second": 2 * a.numel() / seconds(lambda: b.copy_(a))}
    torch.set_float32_matmul_precision("high")
    for name, dtype in (("tf32", torch.float32), ("bfloat16", torch.bfloat16)):
        x = torch.randn(side, side, device=device, dtype=dtype)
        found[f"{name}_flop_per_second"] = 2 * side**3 / seconds(lambda x=x: x @ x)  # type: ignore[misc]
    return found


def floor_seconds(depth: int, precision: str, rates: dict[str, float]) -> dict[str, float]:
    """Return the least time of a step of 128 images: its arithmetic, and its traffic with memory.

    Traffic: each convolution reads its input and writes its output forwards, and backwards reads both and
    their gradients' counterparts: six passes over an activation, the least when BN, ReLU and addition are
    joined to them entirely.
    """
    from residual.analysis.complexity import complexity
    from residual.models import build_model

    counted = complexity(build_model(f"cifar_resnet{depth}", classes=10), (3, 32, 32))
    size = 2 if precision == "bfloat16" else 4
    return {
        "arithmetic": 128 * 6 * counted.multiply_adds / rates[f"{precision}_flop_per_second"],
        "traffic": 128 * 6 * counted.activations * size / rates["bytes_per_second"],
    }


def benchmark(
    depths: Annotated[str, typer.Option(help="Of the networks, with commas between.")] = "20,56,110",
    sides: Annotated[str, typer.Option(help=f"Of {', '.join(SIDES)}.")] = "ours-tf32,ours-bfloat16,usual",
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each side gets.")] = 3,
    iterations: Annotated[int, typer.Option(min=1, help="Timed iterations in a turn.")] = 400,
    workers: Annotated[int, typer.Option(min=0, help="The usual loop's DataLoader workers.")] = 8,
    data_dir: Annotated[
        Path | None, typer.Option(help="Folder with CIFAR-10 (default: random images of that size).")
    ] = None,
    profile_to: Annotated[
        Path | None, typer.Option("--profile", help="Text file for each depth's longest kernels; new.")
    ] = None,
    device: Annotated[
        str, typer.Option(help="cuda; with cpu all of it is rehearsed, and the numbers mean nothing.")
    ] = "cuda",
    out: Annotated[Path | None, typer.Option(help="JSON file to write; it must be new.")] = None,
) -> None:
    """Measure training throughput on a GPU, in turns with the loop that people use."""
    chosen = [side.strip() for side in sides.split(",")]
    if unknown := [side for side in chosen if side not in SIDES]:
        raise InputError(f"--sides: there is no side {unknown[0]!r}; known are {', '.join(SIDES)}")
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("there is no GPU that PyTorch sees; on a CPU use benchmarks/train_cpu.py")
    try:
        networks = [int(depth) for depth in depths.split(",")]
    except ValueError:
        raise InputError(f"--depths {depths}: write whole numbers with commas between, as 20,56") from None
    if profile_to and not set(chosen) - {"usual"}:
        raise InputError("--profile is of a side of ours; name one with --sides")
    check_new_file(out)
    check_new_file(profile_to, "--profile")
    settings = Settings("resnet20", 10 if device == "cuda" else 1, iterations, workers, data_dir)
    progress = Console(stderr=True, highlight=False)
    where = torch.device(device)
    about = environment(device)
    rates = in_new_process(partial(ceilings, where))
    found: dict[str, Any] = {}
    for depth in networks:
        turns: dict[str, list[Measurement]] = {side: [] for side in chosen}
        for number in range(1, rounds + 1):
            for side in chosen:
                one = in_new_process(partial(measure, side, depth, settings, where, time.monotonic()))
                turns[side].append(one)
                # At once: a lent machine can be gone before the last side.
                progress.print(
                    f"ResNet-{depth}, round {number} of {rounds}: {side} {one.images_per_second:,.0f} "
                    f"images/s, ready after {one.first_step_seconds:.0f} s",
                    soft_wrap=True,
                )
        found[str(depth)] = summarize(depth, turns, rates)
    reached = checks(found)
    result = {
        "benchmark": "train_gpu",
        "environment": about,
        "settings": {
            "warmup": settings.warmup,
            "iterations": iterations,
            "workers": workers,
            "data_dir": data_dir and str(data_dir),
            "rounds": rounds,
        },
        "ceilings": rates,
        "networks": found,
        "checks": reached,
    }
    show(Console(highlight=False), found, reached)
    write_json(result, out)
    if profile_to:
        side = next(side for side in chosen if side != "usual")
        parts = [
            f"ResNet-{depth}, {side}\n{in_new_process(partial(profile, side, int(depth), settings, where))}"
            for depth in found
        ]
        profile_to.write_text("\n\n".join(parts), encoding="utf-8")


def summarize(depth: int, turns: dict[str, list[Measurement]], rates: dict[str, float]) -> dict[str, Any]:
    """Return each side's spread, its ratio to the usual loop, its floor, and the time of a whole run."""
    found: dict[str, Any] = {}
    for side, measured in turns.items():
        speeds = [m.images_per_second for m in measured]
        step = 128 / spread(speeds)["median"]
        precision = "bfloat16" if side == "ours-bfloat16" else "tf32"
        floor = floor_seconds(depth, precision, rates)
        found[side] = {
            "images_per_second": spread(speeds),
            "first_step_seconds": spread([m.first_step_seconds for m in measured]),
            "peak_bytes": max(m.peak_bytes for m in measured),
            "whole_run_seconds": ITERATIONS * step,
            "floor_seconds": floor,
            "fraction_of_floor": max(floor.values()) / step,
        }
        if "usual" in turns and side != "usual":
            ratios = [
                a.images_per_second / b.images_per_second
                for a, b in zip(measured, turns["usual"], strict=True)
            ]
            found[side]["ratio"] = spread(ratios)
    return found


def checks(found: dict[str, Any]) -> dict[str, bool]:
    """Return which targets are reached, by the best of our sides."""
    reached: dict[str, bool] = {}
    for depth, sides in found.items():
        ours = [values for side, values in sides.items() if side != "usual"]
        if not ours:
            continue
        best = max(ours, key=lambda values: values["images_per_second"]["median"])
        wanted, seconds = WANTED_RATIO.get(int(depth)), WANTED_SECONDS.get(int(depth))
        if wanted and "ratio" in best:
            ratio = best["ratio"]["median"]
            name = f"ResNet-{depth}: at least {wanted:g} times the usual loop ({ratio:.2f})"
            reached[name] = ratio >= wanted
        if seconds:
            whole = best["whole_run_seconds"]
            reached[f"ResNet-{depth}: 64,000 iterations in {seconds:g} s ({whole:.0f})"] = whole <= seconds
    return reached


def show(console: Console, found: dict[str, Any], reached: dict[str, bool]) -> None:
    """Print a table a network, and which targets are reached."""
    for depth, sides in found.items():
        table = Table(title=f"ResNet-{depth}, batch 128: median")
        for heading in ("", "images/s", "over usual", "64k iterations, s", "of the floor", "ready, s", "GB"):
            table.add_column(heading, justify="right" if heading else "left")
        for side, values in sides.items():
            table.add_row(
                side,
                f"{values['images_per_second']['median']:,.0f}",
                f"{values['ratio']['median']:.2f}" if "ratio" in values else "",
                f"{values['whole_run_seconds']:.0f}",
                f"{values['fraction_of_floor']:.2f}",
                f"{values['first_step_seconds']['median']:.0f}",
                f"{values['peak_bytes'] / 1e9:.1f}",
            )
        console.print(table)
    print_checks(console, reached)


if __name__ == "__main__":
    run(
        benchmark,
        """\b
Examples:
  python benchmarks/train_gpu.py
  python benchmarks/train_gpu.py --out results/benchmarks/train_gpu.json --profile profile.txt
  python benchmarks/train_gpu.py --depths 1202 --sides ours-tf32,ours-bfloat16 --rounds 1 --iterations 50
""",
    )
