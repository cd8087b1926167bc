"""What several test files need: the command, runs that take seconds, and the files that they are about.

A test file tests the module whose name it has: tests/data/test_stream.py is about residual/data/stream.py.
Where rooms have modules of one name, the room comes first (test_data_folder.py), and it may do so elsewhere;
what a room offers itself is tested in test_data.py. What is about the whole house lies beside this file.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from servers import HubServer, serving_hub
from shapes import write_shapes
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from residual import InputError, build_model
from residual.cli import main
from residual.data import helpers
from residual.data.folder import FolderIndex, index_folder
from residual.distributed import World
from residual.evaluation.scores import Scores
from residual.models import Classifier, fitnet, highway, inception, maxout, nin, prelu_net
from residual.models.preprocessing import Preprocessing
from residual.models.weights import save_weights
from residual.recipes import Recipe, find, override
from residual.training.classification import ErrorMeter
from residual.training.sgd import SGD
from residual.training.step import Step

N = TypeVar("N", bound=nn.Module)

ROOT = Path(__file__).parent.parent

# As in the processes that tests start. The networks here are small: threads that wait for each other on a
# busy machine cost minutes, and another number of threads gives other bits.
torch.set_num_threads(1)
# What is replaced in a test would not be in a helper, and each process of the suite would have its own.
helpers.begin(0)
CPU = torch.device("cpu")
#: The marker of tests that need a GPU, and all of what -m says where they run.
GPU_ONLY = "gpu"

Call = Callable[..., int]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
Shown = Callable[..., Any]
Refused = Callable[..., str]


def set_options(settings: Iterable[str]) -> list[str]:
    """Return settings as the command takes them."""
    return [word for setting in settings for word in ("--set", setting)]


#: A residual network of 8 layers on the digits: a whole run takes a second once PyTorch is loaded.
TINY = [
    "digits-resnet20",
    *set_options(
        [
            "model.name=cifar_resnet8",
            "schedule.iterations=240",
            "evaluate_every=10",
            "checkpoint_every=25",
        ]
    ),
]

#: Eight iterations on a folder of images, for the recipes of Section 3.4.
SMALL = [
    "data.folder.size=32",
    "data.folder.shorter_side=[36,48]",
    "batch.size=8",
    "batch.bn_group=4",
    "schedule.iterations=8",
    "schedule.learning_rate=0.02",
    "evaluate_every=4",
    "checkpoint_every=3",
]


#: For those in a network whose checkpoints have 1 MB, not 90.
NARROW = [*SMALL, "model.name=cifar_resnet8", "model.shortcut=null", "model.pool=null"]


def small_recipe(name: str = "imagenet-resnet18", *settings: str) -> Recipe:
    return override(find(name), [*NARROW, *settings])


#: A detector from scratch on images of 48 x 48: 300 iterations of four images teach it shapes.
SHAPES = [
    "name=shapes",
    "detector.backbone.name=cifar_resnet14",
    "detector.anchor_sizes=[14,20]",
    "detector.aspect_ratios=[1]",
    "detector.min_size=4",
    "detector.freeze=0",
    "detector.regions=32",
    "detector.train_proposals=100",
    "detector.proposals=30",
    "data.train=train",
    "data.shorter_side=48",
    "data.longer_side=48",
    "data.scale_range=[1,1]",
    "batch.size=4",
    "batch.at_once=4",
    "schedule.epochs=null",
    "schedule.warmup=null",
    "schedule.learning_rate=0.02",
    "schedule.iterations=300",
    "evaluate_every=1000",
]
#: The same problem, only begun: for what does not need to be learned.
BEGUN = [
    *SHAPES,
    "detector.backbone.name=cifar_resnet8",
    "schedule.iterations=12",
    "evaluate_every=4",
    "checkpoint_every=5",
]

#: Names of seven classes.
SEVEN = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
#: Names of ten classes, one of them with what a terminal's markup is made of.
TEN = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "[ship]", "truck")


# --- the device ---


def pytest_configure(config: pytest.Config) -> None:
    """Keep tests off the GPU: what they compare bit for bit, and with how many ranks, is a CPU's affair.

    Processes that they start see none either. ``pytest -m gpu`` (make test-gpu) runs those that need one.
    """
    if config.option.markexpr != GPU_ONLY:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif not torch.cuda.is_available():
        raise pytest.UsageError(f"-m {GPU_ONLY}: PyTorch sees no GPU here")


#: Files of few long tests, first: of two processes one would be left alone with the last of them.
LONG = (
    *("run/test_run", "reproduce/", "hostile/test_hostile", "cli/test_cli_output", "models/test_onnx"),
    *("test_documents", "test_signals", "test_api", "test_environment"),
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.removeprefix("tests/").startswith(LONG))
    if config.option.markexpr != GPU_ONLY:
        for item in items:
            if item.get_closest_marker(GPU_ONLY):
                item.add_marker(pytest.mark.skip(reason=f"needs a GPU; run by pytest -m {GPU_ONLY}"))


# --- the command ---


def command_line(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "residual", *map(str, arguments)]


def torchrun(*arguments: str | Path, processes: int = 2) -> list[str]:
    """Return the command line that runs the command as several processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [sys.executable, *launcher, "-m", "residual", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return the environment of the processes that tests start, whatever folder they start them in."""
    # One thread: several processes share the machine's cores in these tests.
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "100", "PYTHONPATH": path}


@pytest.fixture
def residual(tmp_path: Path) -> Command:
    """Run the command as a process, in a folder of its own, and return what it printed."""

    def run(*arguments: str | Path, **more: Any) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command_line(*arguments),
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment(),
            timeout=300,
            **more,
        )

    return run


@pytest.fixture(scope="session")
def call() -> Call:
    """Run the command in this process and return its exit status; it prints where capsys sees it."""

    def run_main(*arguments: str | Path) -> int:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["residual", *map(str, arguments)])
            try:
                main()
            except SystemExit as exit:
                return int(exit.code or 0)
        return 0

    return run_main


@pytest.fixture
def shown(call: Call, capsys: pytest.CaptureFixture[str]) -> Shown:
    """Run the command in this process, which has to succeed; return its ``out`` and ``err``."""

    def printed(*arguments: str | Path) -> Any:
        capsys.readouterr()
        code = call(*arguments)
        printed = capsys.readouterr()
        assert code == 0, printed.err
        assert "Traceback" not in printed.err
        return printed

    return printed


@pytest.fixture
def refused(call: Call, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run the command on wrong input, in this process, and return what it says of it on stderr."""

    def sentence(*arguments: str | Path) -> str:
        capsys.readouterr()
        code = call(*arguments)
        stdout, stderr = capsys.readouterr()
        assert (code, stdout) == (2, ""), (stdout, stderr)
        assert "Traceback" not in stderr
        assert stderr.splitlines()[-1].startswith(("residual: ", "Error: ")), stderr
        return stderr

    return sentence


def sentence_of(action: Callable[[], object]) -> str:
    """Return what an action says is wrong with its input."""
    with pytest.raises(InputError) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


def start(*arguments: str | Path, cwd: Path | None = None) -> "subprocess.Popen[str]":
    """Start the command as a process of its own, and return it while it runs."""
    pipe, words = subprocess.PIPE, command_line(*arguments)
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True, cwd=cwd, env=environment())


#: The command, which gets a signal right after what of its run folder is of some iteration was written.
SIGNALLED = """
import os, sys
from residual.__main__ import main
from residual.training import folder, loop

kind, iteration, number = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sys.argv = ["residual", *sys.argv[4:]]
left = [iteration]


def signalled(write, of):
    def written(*arguments):
        result = write(*arguments)
        # Once: what was stopped writes a checkpoint again.
        if left == [of(*arguments)]:
            left.clear()
            os.kill(os.getpid(), number)
        return result

    return written


if kind == "checkpoint":
    loop.save_checkpoint = signalled(loop.save_checkpoint, lambda path, tensors, progress: progress.iteration)
else:
    own = folder.RunFolder
    own.add_metrics = signalled(own.add_metrics, lambda run, line: line["iteration"])
main()
"""


def signalled_after(
    kind: Literal["checkpoint", "line"], iteration: int, number: int, *arguments: str | Path
) -> "subprocess.CompletedProcess[str]":
    """Run the command, which gets a signal once the checkpoint or the line of an iteration is written."""
    words = [sys.executable, "-c", SIGNALLED, kind, str(iteration), str(int(number)), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=300)
    killed = number == signal.SIGKILL
    assert done.returncode == (-number if killed else 128 + number), done.stderr
    return done


def wait_for(process: "subprocess.Popen[str]", happened: Callable[[], bool]) -> None:
    """Wait until something has happened; fail if the process ends before."""
    while not happened():
        assert process.poll() is None, f"the run ended too early: {process.communicate()}"
        time.sleep(0.01)


# --- networks ---


#: Of the networks of Table 1, made small. Not fewer: oneDNN's gradient of a strided 1x1 convolution's weights
#: writes past its buffer where maps are channels-last and channels fewer than 16, or 8 without AVX-512.
WIDTHS = (16, 16, 16, 16)
#: Modules of GoogLeNet and BN-Inception: one in each stage, of each kind.
KEPT = ("3a", "3c", "4a", "5b")


def shrink_rivals(patch: pytest.MonkeyPatch) -> None:
    """Make the paper's rivals quick: all layers with few channels, Inception's a module of a kind."""
    patch.setattr(nin, "FILTERS", ((8, 6, 4), (8, 6, 4), (8, 6)))
    patch.setattr(maxout, "LAYERS", ((6, 8, 4, 4), (6, 8, 3, 4), (4, 5, 3, 2)))
    patch.setattr(maxout, "UNITS", 8)
    patch.setattr(fitnet, "CHANNELS", ((4, 4, 4, 6, 6), (6,) * 6, (8,) * 6))
    patch.setattr(fitnet, "UNITS", 8)
    for depth in highway.LAYERS:
        patch.setitem(highway.LAYERS, depth, highway.Layers((2, 4, 4), (1, 1, 1), (3,)))
    patch.setattr(prelu_net, "UNITS", 16)
    patch.setattr(prelu_net, "FILTERS", ((8, 1), (8, 2), (8, 1), (8, 1)))
    patch.setattr(inception, "WITH_AUXILIARY", ("inception4a",))
    networks = {"GOOGLENET": inception.GoogLeNet, "BN_INCEPTION": inception.BNInception}
    for name, network in networks.items():
        table = {module: widths for module, widths in getattr(inception, name).items() if module in KEPT}
        # Whole tables: an entry that is put back would be their last.
        patch.setattr(inception, name, table)
        layers = {
            stage: [layer for layer in names if not layer.startswith("inception") or layer[-2:] in table]
            for stage, names in network.layers_of_stages.items()
        }
        patch.setattr(network, "layers_of_stages", layers)


# --- runs ---


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what is measured here out of the user's cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RESIDUAL_CACHE", raising=False)
        yield


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Return a run's metrics without what the clock says."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        del line["seconds"]
        for part in ("validation", "test"):
            line.get(part, {}).pop("images_per_second", None)
    return lines


def results_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def tensors_of(run: Path) -> dict[str, Tensor]:
    """Return what a run has learned."""
    return load_file(run / "weights" / "model.safetensors")


@contextmanager
def precisions_of_convolutions() -> Iterator[set[tuple[bool, torch.dtype]]]:
    """Give the types of convolutions' results in this context, each with whether the layer was training."""
    found: set[tuple[bool, torch.dtype]] = set()

    def note(module: nn.Module, _: object, output: object) -> None:
        if isinstance(module, nn.Conv2d) and isinstance(output, Tensor):
            found.add((module.training, output.dtype))

    hook = register_module_forward_hook(note)
    try:
        yield found
    finally:
        hook.remove()


def assert_same_run(run: Path, other: Path) -> None:
    """Bit for bit: every loss and error on the way, every weight and statistic at the end."""
    assert metrics_of(run) == metrics_of(other)
    mine, theirs = tensors_of(run), tensors_of(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.fixture(autouse=True, scope="module")
def without_pages_of_runs(request: pytest.FixtureRequest) -> Iterator[None]:
    """In tests of studies: none reads its runs' pages, which take as long as a run of a few iterations."""
    with pytest.MonkeyPatch.context() as patch:
        if request.path.parent.name == "reproduce":
            patch.setattr("residual.run.run._try_page", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three classes; thirteen training and eight validation images."""
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def trained_on_images(images: Path, tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    """A complete run of a narrow network on ``images``, of eight iterations."""
    out = tmp_path_factory.mktemp("runs") / "narrow"
    arguments = ("imagenet-resnet18", *set_options(NARROW), "--data-dir", images, "--out", out)
    assert call("train", *arguments) == 0
    return out


@pytest.fixture
def plain_colours(tmp_path: Path) -> FolderIndex:
    """Eleven training images of one colour each, so that an image is known by its colour."""
    for number in range(11):
        path = tmp_path / "train" / f"class{number % 3}" / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + number, 16), (number * 20, 100, 50)).save(path)
    return index_folder(tmp_path, "train")


@pytest.fixture
def deep_folder(tmp_path: Path) -> Path:
    """Three images at two depths, files that are none, and a link that leads back."""
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b [1].JPG", "deep/c.png")):
        smooth_image(seed=number).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    (folder / "deep" / "loop").symlink_to(folder)
    return folder


@pytest.fixture
def published_cifar10() -> Path:
    """The folder of the real CIFAR-10, for tests that are slow as well."""
    folder = os.environ.get("CIFAR10_DIR")
    if not folder:
        pytest.skip("CIFAR10_DIR does not name a folder with CIFAR-10")
    return Path(folder)


@pytest.fixture(scope="session")
def few_shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten training and five test images with boxes, in VOC's layout."""
    return write_shapes(tmp_path_factory.mktemp("data") / "few", train=10, test=5)


@pytest.fixture(scope="session")
def begun_detector(few_shapes: Path, tmp_path_factory: pytest.TempPathFactory, call: Call) -> Path:
    """A complete run of a detector that has learned next to nothing."""
    out = tmp_path_factory.mktemp("runs") / "begun"
    arguments = ("voc-finetune", *set_options(BEGUN), "--data-dir", few_shapes, "--out", out)
    assert call("detect", "train", *arguments) == 0
    return out


@pytest.fixture(scope="session")
def zygote() -> Iterator[Any]:
    """A process that tries command lines in children of its own (hostile/zygote.py)."""
    from zygote import Zygote

    made = Zygote()
    yield made
    made.close()


@pytest.fixture(scope="session")
def ground(zygote: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of every file that is read (hostile/ground.py)."""
    from ground import lay

    return lay(tmp_path_factory.mktemp("hostile") / "ground", zygote)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The Hugging Face Hub on this machine, and caches of its files in the test's folder."""
    monkeypatch.setenv("RESIDUAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hf"))
    with serving_hub() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.address)
        yield server


@pytest.fixture(scope="session")
def stage(tmp_path_factory: pytest.TempPathFactory, call: Call) -> Any:
    """All files that the documents name, for the tests that run what they tell (documents.py)."""
    from documents import Stage

    made = Stage(tmp_path_factory.mktemp("stage"), call)
    with pytest.MonkeyPatch.context() as patch:
        made.patch(patch)
        made.build(patch)
    return made


# --- images and networks ---


def smooth_image(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    """Broad coloured patches, smooth as images are: JPEG and resizing change them little."""
    coarse = np.random.default_rng(seed).integers(256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels_of(given: Image.Image) -> Tensor:
    """Return an image as uint8 (C, H, W)."""
    array = np.array(given)
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)


def write_images(
    root: Path,
    classes: Sequence[str] = ("ant", "bee", "cow"),
    train: int = 13,
    val: int = 8,
    sizes: Sequence[tuple[int, int]] = ((60, 40), (40, 52), (44, 44), (41, 61)),
    suffix: str = "png",
) -> Path:
    """Write ``root/{train,val}/CLASS/NN.png``, the classes and the sizes (width, height) in turn.

    A class is known by its colour. Return ``root``.
    """
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            k = number % len(classes)
            patches = (
                np.asarray(smooth_image(*sizes[number % len(sizes)], seed=1000 * k + number)).astype(int) // 3
            )
            patches[..., k % 3] += 150 - 20 * (k // 3)
            path = root / split / classes[k] / f"{number:02d}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(patches.clip(0, 255).astype(np.uint8)).save(path)
    return root


def randomise(network: N, seed: int = 0) -> N:
    """Make every tensor matter: BN as it is initialised would hide a wrong order or a lost tensor."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.0, generator=generator)
            module.bias.data.normal_(0, 0.2, generator=generator)
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


def save_network(
    folder: Path,
    name: str = "cifar_resnet8",
    classes: Sequence[str] = TEN,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    seed: int = 0,
    **chosen: Any,
) -> Path:
    """Write the weights folder of a network that nobody has trained, and return it.

    Args:
        mean: (C,) or (C, S, S), for a network of C channels; None for a mean image of 32 x 32.
        chosen: more of ``build_model``.
    """
    torch.manual_seed(seed)
    mean = torch.rand(3, 32, 32) if mean is None else mean
    given = {"in_channels": len(mean)} | chosen
    save_weights(
        folder,
        randomise(build_model(name, classes=len(classes), **given), seed),
        name=name,
        options=given,
        preprocessing=Preprocessing(mean, std),
        classes=tuple(classes),
    )
    return folder


def noise(channels: int = 3, side: int = 64) -> Tensor:
    """Return one image as a network's input, always the same."""
    return torch.randn(1, channels, side, side, generator=torch.Generator().manual_seed(1))


def assert_same_outputs(mine: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        expected = theirs(x)
        assert expected.std() > 1e-3  # outputs that are all alike would show nothing
        torch.testing.assert_close(mine(x), expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def random_pixels(*shape: int, seed: int = 1) -> Tensor:
    """Return uint8 noise of a shape, always the same."""
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def small_model(name: str = "cifar_resnet8", seed: int = 0) -> Classifier:
    """Return a network for grey images of four classes, ready to be trained."""
    torch.manual_seed(seed)
    return build_model(name, classes=4, in_channels=1).train().to(memory_format=torch.channels_last)


def small_batch(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return inputs (count, 1, 8, 8) and targets for ``small_model``."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 8, 8, generator=generator)
    return x, torch.randint(4, (count,), generator=generator)


def step_of(model: nn.Module, at_once: int) -> Step:
    """Return a step of training, BN groups of ``at_once`` images one after the other."""
    return Step(model, SGD(model, 0.9, 1e-4, "paper"), at_once, World(), ErrorMeter(CPU))


def some_scores(seed: int = 0, count: int = 40, classes: int = 8) -> Scores:
    """Return softmax scores of images that no network has seen."""
    generator = torch.Generator().manual_seed(seed)
    return Scores(
        ids=tuple(f"val/{n}.jpg" for n in range(count)),
        classes=tuple(f"class {k}" for k in range(classes)),
        probabilities=torch.randn(count, classes, generator=generator).softmax(dim=1),
        targets=torch.arange(count) % classes,
        about={"weights": f"w{seed}"},
    )


def shuffled(given: Scores, seed: int = 9) -> Scores:
    """Return the same scores with images and classes in another order."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(given.ids), generator=generator)
    columns = torch.randperm(len(given.classes), generator=generator)
    return replace(
        given,
        ids=tuple(given.ids[n] for n in rows.tolist()),
        classes=tuple(given.classes[k] for k in columns.tolist()),
        probabilities=given.probabilities[rows][:, columns],
        targets=columns.argsort()[given.targets[rows]],
    )
