"""Ten-crop and multi-scale testing from image files, against a loop that takes one image at a time.

Both sides have the same weights and files, and their probabilities are compared. Every turn of a side has a
process of its own, and the sides take turns. See README.md beside this file.
"""

import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from paired import (
    check_new_file,
    environment,
    in_new_process,
    in_rounds,
    matrix_product_rate,
    peak_bytes,
    print_checks,
    print_table,
    run,
    spread,
    worthwhile,
    write_json,
)
from PIL import Image
from rich.console import Console
from torch import Tensor

from residual.evaluation.views import SCALES, ViewsName

SIDES = {"usual": "one image at a time", "ours": "residual evaluate", "bfloat16": "the same, bfloat16"}

PROTOCOLS: tuple[ViewsName, ...] = ("ten-crop", "multi-scale")

#: On a CPU, and on a GPU, which one image at a time leaves idle.
WANTED_RATIO = {"cpu": {"ours": 2.0, "bfloat16": 3.0}, "cuda": {"ours": 3.0, "bfloat16": 3.0}}

#: The numbers that convolutions multiply, of each side.
DTYPES = {"usual": torch.float32, "ours": torch.float32, "bfloat16": torch.bfloat16}

#: Width and height of ImageNet's images: the most frequent shapes, and some that few others have.
SHAPES = ((500, 375), (500, 375), (500, 333), (375, 500), (500, 375), (640, 427), (500, 333), (480, 500))


def write_images(folder: Path, count: int) -> None:
    """Write JPEGs of smooth random colours in folders of two classes."""
    generator = np.random.default_rng(0)
    for n in range(count):
        coarse = generator.integers(256, size=(12, 16, 3), dtype=np.uint8)
        file = folder / "val" / f"class{n % 2}" / f"{n:05}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(coarse).resize(SHAPES[n % len(SHAPES)], Image.Resampling.BICUBIC)
        image.save(file, quality=92)


def write_weights(folder: Path, model: str) -> None:
    from residual.models import build_model
    from residual.models.foreign import IMAGENET_MEAN, IMAGENET_STD
    from residual.models.preprocessing import Preprocessing
    from residual.models.weights import save_weights

    torch.manual_seed(0)
    save_weights(
        folder,
        build_model(model),
        name=model,
        options={},
        preprocessing=Preprocessing(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)),
        classes=["class0", "class1", *(f"other{k}" for k in range(998))],
    )


@torch.inference_mode()
def usual(
    protocol: ViewsName, weights: Path, files: list[Path], device: torch.device
) -> tuple[Tensor, float]:
    """What people write: PIL, torchvision's transforms, the views of one image, then the next image."""
    from torchvision import transforms

    from residual.models.weights import load_weights

    loaded = load_weights(weights)
    model = loaded.model.to(device)
    mean, std = loaded.preprocessing.mean.flatten(), loaded.preprocessing.std.flatten()
    prepare = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    resize, ten_crop = transforms.Resize(256), transforms.TenCrop(224)
    rows, start = [], time.perf_counter()
    for file in files:
        image = Image.open(file).convert("RGB")
        if protocol == "ten-crop":
            batch = torch.stack([prepare(crop) for crop in ten_crop(resize(image))]).to(device)
            rows.append(model(batch).softmax(dim=1).mean(dim=0).cpu())
            continue
        each = []
        for side in SCALES:
            resized = prepare(transforms.Resize(side)(image))[None].to(device)
            for view in (resized, resized.flip(3)):
                each.append(model.score_map(view).mean(dim=(2, 3)).softmax(dim=1)[0])
        rows.append(torch.stack(each).mean(dim=0).cpu())
    return torch.stack(rows), len(files) / (time.perf_counter() - start)


def measure(side: str, protocol: ViewsName, weights: Path, data: Path, device: str) -> dict[str, Any]:
    """Return the images/s of a side, its probabilities in the files' order, and its peak of memory."""
    # What both sides decode or resize with takes seconds to import, which is not to be timed.
    import torchvision.transforms.v2.functional  # noqa: F401

    from residual.device import full_float32, pick_device
    from residual.inference.evaluation import EvaluationOptions, evaluate

    where = pick_device(device)
    if side == "usual":
        # As ours: PyTorch's convolutions would shorten factors on a GPU.
        with full_float32(where):
            rows, speed = usual(protocol, weights, sorted(data.rglob("*.jpg")), where)
    else:
        precision: Any = "bfloat16" if side == "bfloat16" else "float32"
        options = EvaluationOptions("folder", "test", data, protocol, precision=precision)
        found = evaluate(weights, options, device=device, keep_scores=True)
        assert found.scores is not None
        rows, speed = found.scores.probabilities, found.metrics.images_per_second
    peak = torch.cuda.max_memory_allocated() if where.type == "cuda" else peak_bytes()
    return {"images_per_second": speed, "peak_bytes": peak, "probabilities": rows.numpy()}


def reading(protocol: ViewsName, data: Path) -> float:
    """Return the seconds that an image takes to be decoded and resized to its views, on all cores."""
    from residual.data.folder import index_folder
    from residual.distributed import World
    from residual.evaluation.labelled import ImagesInFiles
    from residual.evaluation.views import make_views

    images = ImagesInFiles(index_folder(data, "val"))
    seconds = 0.0
    for _ in range(2):  # the first time imports libraries
        start = time.perf_counter()
        for _ in images.batches(make_views(protocol), 3, World(), lambda *_: None):
            pass
        seconds = time.perf_counter() - start
    return seconds / len(images.targets)


def flop_per_image(protocol: ViewsName, model: str, images: int) -> float:
    """Return what the views of an image cost on average: a multiply-add is two operations."""
    from residual.analysis.complexity import complexity
    from residual.evaluation.views import crop_views, make_views
    from residual.models import build_model

    network, views, total = build_model(model), make_views(protocol), 0
    shapes = [SHAPES[n % len(SHAPES)] for n in range(images)]
    for (width, height), count in Counter(shapes).items():
        for part in crop_views(torch.empty(3, height, width, dtype=torch.uint8), views):
            shown = part.shape[0] * (2 if views.flips else 1)
            total += count * shown * 2 * complexity(network, (3, *part.shape[2:])).multiply_adds
    return total / images


def run_round(number: int, weights: Path, data: Path, device: str) -> dict[str, Any]:
    found: dict[str, Any] = {"round": number}
    measured = worthwhile(SIDES, device)
    if device == "cpu":
        found["flop_per_second"] = {
            side: in_new_process(partial(matrix_product_rate, DTYPES[side])) for side in measured
        }
        found["reading_seconds"] = {p: in_new_process(partial(reading, p, data)) for p in PROTOCOLS}
    for protocol in PROTOCOLS:
        sides = {s: in_new_process(partial(measure, s, protocol, weights, data, device)) for s in measured}
        rows = {side: values.pop("probabilities") for side, values in sides.items()}
        for side, values in sides.items():
            values["largest_difference"] = float(np.abs(rows[side] - rows["usual"]).max())
            values["ratio"] = values["images_per_second"] / sides["usual"]["images_per_second"]
        found[protocol] = sides
    return found


def summarize(rounds: list[dict[str, Any]], flop: dict[ViewsName, float]) -> dict[str, Any]:
    """Return the spread of each figure.

    A side's ceiling, on a CPU, is reading alone and then the products of its convolutions alone at the rate
    of matrix products: both want all cores.

    Args:
        flop: per image, by protocol.
    """
    for r in rounds:
        for protocol in PROTOCOLS if "flop_per_second" in r else ():
            for side, values in r[protocol].items():
                least = r["reading_seconds"][protocol] + flop[protocol] / r["flop_per_second"][side]
                values["fraction_of_ceiling"] = values["images_per_second"] * least
    fields = [key for key in rounds[0][PROTOCOLS[0]]["usual"] if key != "probabilities"]
    return {
        p: {s: {field: spread([r[p][s][field] for r in rounds]) for field in fields} for s in rounds[0][p]}
        for p in PROTOCOLS
    }


def checks(summary: dict[str, Any], device: str) -> dict[str, bool]:
    return {
        f"{protocol}, {SIDES[side]}: at least {least:.0f} times the loop": sides[side]["ratio"]["median"]
        >= least
        for protocol, sides in summary.items()
        for side, least in WANTED_RATIO.get(device, {}).items()
        if side in sides
    }


def show(console: Console, result: dict[str, Any]) -> None:
    rows = [
        (
            protocol,
            SIDES[side],
            f"{values['images_per_second']['median']:.2f}",
            f"{values['ratio']['median']:.2f}",
            f"{values['ratio']['min']:.2f}-{values['ratio']['max']:.2f}",
            f"{values['peak_bytes']['max'] / 1e9:.2f}",
            f"{values['fraction_of_ceiling']['median']:.2f}" if "fraction_of_ceiling" in values else "",
            f"{values['largest_difference']['max']:.1e}",
        )
        for protocol, sides in result["summary"].items()
        for side, values in sides.items()
    ]
    settings = result["settings"]
    title = f"{settings['model']}, {settings['images']} JPEGs"
    print_table(console, title, "loop", rows, ("of its ceiling", "largest difference"), show_lines=True)
    print_checks(console, result["checks"])


def benchmark(
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each side gets.")] = 3,
    images: Annotated[int, typer.Option(min=1, help="Images, which are generated.")] = 16,
    model: Annotated[str, typer.Option(help="The network.")] = "resnet50",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="JSON file to write; it must be new.")] = None,
) -> None:
    """Measure testing with many views, in turns with the usual loop."""
    from residual.device import pick_device

    check_new_file(out)
    where = str(pick_device(device))
    about = environment(where)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_weights(folder / "weights", model)
        write_images(folder / "data", images)
        found = in_rounds(rounds, lambda n: run_round(n, folder / "weights", folder / "data", where))
    kind = torch.device(where).type
    flop = (
        {protocol: flop_per_image(protocol, model, images) for protocol in PROTOCOLS} if kind == "cpu" else {}
    )
    summary = summarize(found, flop)
    result = {
        "benchmark": "testing",
        "environment": about,
        "settings": {"rounds": rounds, "model": model, "images": images},
        "summary": summary,
        "checks": checks(summary, kind),
        "rounds": found,
    }
    show(Console(highlight=False), result)
    write_json(result, out)


if __name__ == "__main__":
    run(
        benchmark,
        """\b
Examples:
  python benchmarks/testing.py
  python benchmarks/testing.py --device cuda --images 2000 --out results/benchmarks/testing_gpu.json
""",
    )
