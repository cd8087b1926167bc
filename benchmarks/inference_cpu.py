"""ResNet-50 on a CPU, from uint8 images to probabilities, against torchvision in eager mode and ONNX Runtime.

Every turn of a side has a process of its own, and the sides take turns. See README.md beside this file.
"""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import typer
from paired import (
    check_new_file,
    environment,
    in_new_process,
    in_rounds,
    matrix_product_rate,
    peak_bytes,
    percentiles,
    print_checks,
    run,
    spread,
    worthwhile,
    write_json,
)
from rich.console import Console
from rich.table import Table
from torch import Tensor

SIDES = {
    "torchvision": "torchvision, eager",
    "onnxruntime": "its ONNX file in ONNX Runtime",
    "ours": "residual, float32",
    "bfloat16": "residual, bfloat16",
}

#: The numbers that convolutions multiply, of each side.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NUMBERS = dict.fromkeys(SIDES, "float32") | {"bfloat16": "bfloat16"}

#: What is measured on this machine.
MEASURED = worthwhile(SIDES)

BATCHES = (1, 16)

#: Ours against torchvision, by the median latency: 1.6 and 3.2 times in float32.
WANTED_RATIO = {
    ("batch 1", "ours"): 1.6,
    ("batch 16", "ours"): 3.2,
    ("batch 1", "bfloat16"): 1.6,
    ("batch 16", "bfloat16"): 3.2,
}
#: Ours against ONNX Runtime: at most a tenth slower in float32, well ahead in bfloat16.
WANTED_OF_ONNXRUNTIME = {
    ("batch 1", "ours"): 0.9,
    ("batch 16", "ours"): 0.9,
    ("batch 16", "bfloat16"): 1.4,
}

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def torchvision_side() -> Callable[[Tensor], Tensor]:
    """What people write: the model in evaluation mode, images normalised, no gradients."""
    import torchvision

    model = torchvision.models.resnet50().eval()
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    return lambda images: model((images / 255 - mean) / std).softmax(dim=1)


def write_onnx(file: Path) -> None:
    """Write the network and its preprocessing as `residual export --onnx` does."""
    from residual.models import build_model
    from residual.models.onnx import export_onnx
    from residual.models.preprocessing import Preprocessing
    from residual.models.weights import load_weights, save_weights

    save_weights(
        file.parent / "weights",
        build_model("resnet50", variant="v1.5"),
        name="resnet50",
        options={"variant": "v1.5"},
        preprocessing=Preprocessing(torch.tensor(MEAN), torch.tensor(STD)),
        classes=[str(number) for number in range(1000)],
    )
    export_onnx(load_weights(file.parent / "weights"), file, (224, 256))


def onnxruntime_side(file: Path) -> Callable[[Tensor], Tensor]:
    """The file in ONNX Runtime, on as many threads as PyTorch takes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(file, options, ["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: torch.from_numpy(session.run(None, {name: images.numpy()})[0]).softmax(dim=1)


def our_side(precision: Any) -> Callable[[Tensor], Tensor]:
    from residual.device import keep_freed_memory
    from residual.evaluation.views import crop_views, make_views, score
    from residual.models import build_model
    from residual.models.inference import for_inference
    from residual.models.preprocessing import Preprocessing

    keep_freed_memory()  # as residual.load does
    model = for_inference(build_model("resnet50", variant="v1.5"), precision=precision)
    prepare = Preprocessing(torch.tensor(MEAN), torch.tensor(STD))
    views = make_views("center", 224, 224)
    return lambda images: score(model, prepare, crop_views(images, views), views)


@torch.inference_mode()
def measure(side: str, batch: int, passes: int, file: Path) -> dict[str, Any]:
    """Return the latencies of a side in milliseconds, and its peak of memory; ``file`` is the ONNX file."""
    sides: dict[str, Callable[[], Callable[[Tensor], Any]]] = {
        "torchvision": torchvision_side,
        "onnxruntime": partial(onnxruntime_side, file),
        "ours": partial(our_side, "float32"),
        "bfloat16": partial(our_side, "bfloat16"),
    }
    function = sides[side]()
    images = torch.randint(256, (batch, 3, 224, 224), dtype=torch.uint8)
    latencies = []
    for number in range(passes + 2):
        start = time.perf_counter()
        function(images)
        if number >= 2:  # the first ones fill caches
            latencies.append(1000 * (time.perf_counter() - start))
    return {"milliseconds": latencies, "peak_bytes": peak_bytes()}


def run_round(number: int, passes: int, file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"round": number}
    for batch in BATCHES:
        # A batch of 16 takes as long as many single images.
        count = max(3, passes // batch)
        found[f"batch {batch}"] = {
            side: in_new_process(partial(measure, side, batch, count, file)) for side in MEASURED
        }
    found["flop_per_second"] = {
        name: in_new_process(partial(matrix_product_rate, DTYPES[name]))
        for name in sorted({NUMBERS[side] for side in MEASURED})
    }
    return found


def flop_per_image() -> int:
    """Return what a forward pass computes per image: a multiply-add is two operations."""
    from residual.analysis.complexity import complexity
    from residual.models import build_model

    return 2 * complexity(build_model("resnet50", variant="v1.5"), (3, 224, 224)).multiply_adds


def summarize(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return percentiles over all rounds, and ratios of medians taken within a round.

    The ceiling is the rate of matrix products of the numbers that a side's convolutions multiply.
    """
    flop = flop_per_image()
    summary: dict[str, Any] = {}
    for batch in BATCHES:
        turns = [r[f"batch {batch}"] for r in rounds]
        middles = [{side: median(turn[side]["milliseconds"]) for side in MEASURED} for turn in turns]
        summary[f"batch {batch}"] = {
            side: {
                "milliseconds": percentiles([ms for turn in turns for ms in turn[side]["milliseconds"]]),
                "peak_bytes": max(turn[side]["peak_bytes"] for turn in turns),
                "ratio": spread([middle["torchvision"] / middle[side] for middle in middles]),
                "onnxruntime": spread([middle["onnxruntime"] / middle[side] for middle in middles]),
                "fraction_of_ceiling": spread(
                    [
                        1000 * batch * flop / r["flop_per_second"][NUMBERS[side]] / middle[side]
                        for r, middle in zip(rounds, middles, strict=True)
                    ]
                ),
            }
            for side in MEASURED
        }
    return summary


def checks(summary: dict[str, Any]) -> dict[str, bool]:
    return {
        f"{SIDES[side]}, {batch}: at least {least} times {other}": summary[batch][side][key]["median"]
        >= least
        for other, key, wanted in (
            ("torchvision", "ratio", WANTED_RATIO),
            ("ONNX Runtime", "onnxruntime", WANTED_OF_ONNXRUNTIME),
        )
        for (batch, side), least in wanted.items()
        if side in MEASURED
    }


def show(console: Console, result: dict[str, Any]) -> None:
    table = Table(title="ResNet-50, 224 x 224, uint8 images to probabilities", show_lines=True)
    for heading in (
        "",
        "batch",
        "p50, ms",
        "p90, ms",
        "p99, ms",
        "torchvision / it",
        "ONNX / it",
        "of its ceiling",
        "peak, GB",
    ):
        table.add_column(heading, justify="right" if heading else "left")
    for batch, sides in result["summary"].items():
        for side, values in sides.items():
            ratio = values["ratio"]
            table.add_row(
                SIDES[side],
                batch.removeprefix("batch "),
                *(f"{values['milliseconds'][p]:.0f}" for p in ("p50", "p90", "p99")),
                f"{ratio['median']:.2f}\n{ratio['min']:.2f}-{ratio['max']:.2f}",
                f"{values['onnxruntime']['median']:.2f}",
                f"{values['fraction_of_ceiling']['median']:.2f}",
                f"{values['peak_bytes'] / 1e9:.2f}",
            )
    console.print(table)
    print_checks(console, result["checks"])


def benchmark(
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each side gets.")] = 5,
    passes: Annotated[int, typer.Option(min=16, help="Timed passes of one image in a turn.")] = 48,
    out: Annotated[Path | None, typer.Option(help="JSON file to write; it must be new.")] = None,
) -> None:
    """Measure the latency of ResNet-50 on the CPU, in turns with torchvision's model and ONNX Runtime."""
    check_new_file(out)
    about = environment("cpu")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "resnet50.onnx"
        in_new_process(partial(write_onnx, file))
        found = in_rounds(rounds, lambda number: run_round(number, passes, file))
    summary = summarize(found)
    result = {
        "benchmark": "inference_cpu",
        "environment": about,
        "settings": {"rounds": rounds, "passes": passes},
        "summary": summary,
        "checks": checks(summary),
        "rounds": found,
    }
    show(Console(highlight=False), result)
    write_json(result, out)


if __name__ == "__main__":
    run(
        benchmark,
        """\b
Examples:
  python benchmarks/inference_cpu.py
  python benchmarks/inference_cpu.py --out results/benchmarks/inference_cpu.json
""",
    )
