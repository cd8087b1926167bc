"""What the documents and --help tell people to type, and a place where all of it can be typed."""

import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import typer
from caffe import caffemodel, resnet, write_mean
from conftest import BEGUN, ROOT, WIDTHS, set_options, shrink_rivals, smooth_image, write_images
from located import xml
from PIL import Image
from shapes import write_coco, write_devkit, write_imagenet_det, write_shapes, write_yolo
from torch import nn

from residual import build_model
from residual.class_names import CIFAR10_CLASSES, imagenet_classes
from residual.cli import app
from residual.data import cifar10
from residual.models import cifar, imagenet
from residual.models.blocks import BasicBlock, Block, BottleneckBlock, stack
from residual.models.preprocessing import Preprocessing
from residual.models.weights import save_weights
from residual.recipes import DetectionRecipe, find
from residual.run import start_from

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

#: Programs that our pages name: what begins with one of them is a command.
PROGRAMS = ("residual ", "torchrun ", "make ", "source ", "pip ", "python ", "git ")
#: Where the data of a table's further commands lie, if not where those of its first one do.
OTHER_DATA = {"table8": "~/coco", "table9": "~/coco", "table12": "~/ILSVRC"}


@dataclass(frozen=True)
class Told:
    """Something that a document tells people to type.

    Attributes:
        text: a command, its continued lines joined, without comments; or a page's Python.
        where: the page or the command's help.
        whole: whether it is to be typed as it stands, from a code fence or a table of commands; words in a
            sentence may only mention a command.
    """

    text: str
    where: str
    whole: bool = True

    @property
    def key(self) -> str:
        """What it shares with what is the same: CIFAR-10 lies in ``data`` as well if nothing else is said."""
        return self.text.replace(" --data-dir ~/data", "")


# --- reading ---


def fences(page: str) -> Iterator[tuple[str, str]]:
    """Yield the language and the content of every code fence of a page."""
    for match in re.finditer(r"^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        yield match[1], match[2]


def commands_of(fence: str) -> Iterator[str]:
    """Yield the commands of a fence or of a help's examples, continued lines joined, without comments."""
    for line in re.sub(r"\\\n\s*", "", fence).splitlines():
        if text := re.sub(r"\s+# .*$", "", line).strip():
            yield text


def is_shell(fence: str) -> bool:
    """Whether a fence without a language holds commands, and not the tree of a folder, say."""
    return any(line.startswith(PROGRAMS) for line in fence.splitlines())


def told_by_pages() -> Iterator[Told]:
    """Yield the commands of README and docs: those of code fences, and those in the middle of a text."""
    for path in PAGES:
        page = path.read_text(encoding="utf-8")
        for language, fence in fences(page):
            if language in ("", "bash", "sh", "shell", "console") and is_shell(fence):
                yield from (Told(text, path.name) for text in commands_of(fence))
        for line in prose_of(page):
            codes = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", line)]
            first = next((code.split() for code in codes if code.startswith("residual reproduce ")), None)
            table = line.startswith("|") and first is not None
            for code in codes:
                if first and table and re.fullmatch(r"(table|figure)\d+|signals", code):
                    # "`residual reproduce table2 --data-dir ~/imagenet`, `table3`": the same for table3.
                    words = [*first[:2], code, *first[3:]]
                    if code in OTHER_DATA and "--data-dir" in words:
                        words[words.index("--data-dir") + 1] = OTHER_DATA[code]
                    yield Told(" ".join(words), path.name)
                elif re.sub(r"^[A-Z_]+=\S+ ", "", code).startswith(PROGRAMS):
                    yield Told(code, path.name, whole=table)


def prose_of(page: str) -> list[str]:
    """Return the paragraphs of a page, and the rows of its tables, without code fences."""
    prose = re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL)
    return re.split(r"\n\n|\n(?=\||- )", prose)


def told_by_help(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[Told]:
    """Yield the examples in the help of every command."""
    group = group or typer.main.get_command(app)
    where = " ".join(["residual", *words, "--help"])
    if start := re.search(r"Start here: (.*)", group.epilog or ""):
        yield Told(start[1], where)
    examples = (group.epilog or "").partition("Examples:\n")[2]
    for text in commands_of(examples.split("\n\n")[0]):
        yield Told(text, where)
    for name, command in getattr(group, "commands", {}).items():
        yield from told_by_help(command, (*words, name))


def distinct(told: Iterable[Told]) -> list[Told]:
    """Return each text once; one that is to be typed somewhere is to be typed."""
    found: dict[str, Told] = {}
    for each in told:
        if each.key not in found or (each.whole and not found[each.key].whole):
            found[each.key] = each
    return list(found.values())


def python_of(page: Path) -> str:
    """Return all Python of a page, in its order."""
    found = fences(page.read_text(encoding="utf-8"))
    return "\n".join(fence for language, fence in found if language == "python")


def command_named(words: list[str]) -> tuple[Any, list[str]]:
    """Return the command (or the group) that the first words name, and the other words.

    Raises:
        KeyError: for a command that does not exist.
    """
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    return command, rest


def options_of(command: Any) -> set[str]:
    """Return the names of a command's options."""
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return names | {"--help"}


# --- typing ---

#: Images of CIFAR-10 in each of its six files.
RECORDS = 16
SHORT = ["schedule.epochs=null", "schedule.iterations=2", "evaluate_every=2", "checkpoint_every=1"]
#: What makes a run of each kind last less than a second. It comes after the settings of the documents.
IN_MEMORY = [*SHORT, "schedule.warmup=null", "batch.size=32", "batch.bn_group=32"]
IN_FOLDERS = [
    *SHORT,
    "batch.size=8",
    "batch.bn_group=4",
    "data.folder.size=32",
    "data.folder.shorter_side=[36,40]",
]
WITH_BOXES = [
    *(setting for setting in BEGUN if not setting.startswith(("name=", "detector.backbone", "data.train="))),
    *SHORT,
]

LOCATED = [*SHORT, "batch.size=2", "batch.at_once=2", "data.size=32", "data.shorter_side=[36,40]"]

#: Those of residual reproduce whose runs are of images in folders.
IMAGENET_EXPERIMENTS = ("table2", "table3", "table4", "table5", "figure4", "signals-imagenet")


def settings_for(words: list[str]) -> list[str]:
    """Return the settings that make a command quick which trains; none for one that does not."""
    if "--resume" in words or "--no-train" in words:
        return []
    if words[0] == "detect":
        return WITH_BOXES if words[1] == "train" else []
    if words[0] == "locate":
        return LOCATED if words[1] == "train" else []
    if words[0] == "train":
        return IN_FOLDERS if words[1].startswith(("imagenet", "tiny-imagenet", "finetune")) else IN_MEMORY
    if words[0] != "reproduce" or words[1] in ("report", "complexity"):
        return []
    if words[1] in ("table7", "table8", "table9", "table10", "table11", "table12"):
        return WITH_BOXES
    if words[1] == "localization":
        return LOCATED
    return IN_FOLDERS if words[1] in IMAGENET_EXPERIMENTS else IN_MEMORY


@dataclass(frozen=True)
class Typed:
    """A command as it is run in a test.

    Attributes:
        words: without the program's name.
        to: the file that its output goes to.
    """

    words: list[str]
    to: str | None

    @property
    def keeps(self) -> bool:
        """Whether it is about what is in its folder already."""
        return bool({"--resume", "--no-train", "report"} & set(self.words))


def typed(text: str) -> Typed:
    """Return a documented command as one process types it, with settings that make it quick.

    torchrun's processes become one, "~" is the home folder, and "..." stands for weights.
    """
    words = shlex.split(text, comments=True)
    if words[0] == "torchrun":
        words = words[words.index("residual") :]
    assert words[0] == "residual", words
    to = None
    if ">" in words:
        words, to = words[: words.index(">")], words[-1]
    words = ["weights/resnet101" if word == "..." else word for word in words[1:]]
    words = [str(Path(word).expanduser()) if word.startswith("~") else word for word in words]
    if words[0] == "reproduce" and ("1202" in words or (words[1] == "table6" and "--depths" not in words)):
        # 1202 layers take a while however narrow they are; what is there is shown.
        words.append("--no-train")
    if quick := settings_for(words):
        # Each value is said once, and by these.
        for option in {"--epochs", "--lr", "--batch"} & set(words):
            place = words.index(option)
            del words[place : place + 2]
    return Typed([*words, *set_options(quick)], to)


def mentioned(text: str) -> tuple[Any, list[str]]:
    """Return the command that words in a sentence are about, and its options there.

    Raises:
        KeyError: for a command that does not exist.
    """
    words = text.split("residual ", 1)[1].split()
    command, rest = command_named(words)
    return command, [word for word in rest if word.startswith("--")]


def try_out(told: Told, stage: "Stage", folder: Path, patch: Any, call: Callable[..., int]) -> Typed:
    """Run a documented command in a folder of its own, and return how it was run.

    Raises:
        AssertionError: when it does not end well, or does not write what it says.
    """
    stage.patch(patch)
    command = typed(told.text)
    patch.chdir(stage.copy(folder / "place", detection="detect" in command.words[:1]))
    for name in written_by(command.words):
        path = Path(name)
        if path.is_dir() and not command.keeps:
            shutil.rmtree(path)
        elif path.is_file():
            path.unlink()
    status = call(*command.words)
    assert status == 0, f"{told.where}: {' '.join(['residual', *command.words])} ended with {status}"
    for name in written_by(command.words):
        assert Path(name).exists(), f"{told.where}: {told.text} has not written {name}"
    return command


def written_by(words: list[str]) -> list[str]:
    """Return what a command writes, and what must not be there before."""
    named = [words[words.index(option) + 1] for option in OUTPUTS if option in words]
    kind = words[:1] if words[0] == "train" else words[:2]
    if kind[-1:] == ["train"] and "--out" not in words:
        recipe = words[len(kind)]
        named.append(f"runs/{NAMES.get((*kind, recipe), recipe)}")
    if kind == ["reproduce", "degradation"] and "--out" not in words:
        named.append("runs/degradation")
    if words[0] == "import" and "--out" not in words:
        named.append(f"weights/{Path(words[1]).stem}")
    return named


#: What the recipes in my.yaml are called, and their runs if nothing else is said.
NAMES = {("train", "my.yaml"): "cifar10-resnet110", ("detect", "train", "my.yaml"): "voc-finetune"}
OUTPUTS = (
    "--out",
    "--dry-run",
    "--save-scores",
    "--onnx",
    "--torchvision",
    "--sheet",
    "--heat",
    "--submission",
    "--figure",
)


# --- the place ---


def _one_block(block: type[Block], inputs: int, width: int, blocks: int, *more: Any) -> nn.Sequential:
    """A stage of one block, however deep the network is by its name."""
    return stack(block, inputs, width, 1, *more)


class Stage:
    """A home and a working folder in which every file is that the documents name: small, and quickly made.

    Networks have the paper's names and a block a stage of a few filters; CIFAR-10 has a few images a file.

    Args:
        root: an empty folder.
        call: runs the command and returns its exit status.
    """

    def __init__(self, root: Path, call: Callable[..., int]) -> None:
        self.home, self.place, self._call = root / "home", root / "place", call
        self.home.mkdir()
        self.place.mkdir()

    def patch(self, patch: Any) -> None:
        """Make networks and CIFAR-10 small, and everything happen in this home.

        Runs write no pages, which take as long as a few iterations; ``residual report`` does.
        """
        patch.setattr("residual.run.run._try_page", lambda *_: None)
        patch.setenv("HOME", str(self.home))
        patch.setenv("RESIDUAL_CACHE", str(self.home / "cache"))
        patch.setattr(cifar10, "RECORDS", RECORDS)
        patch.setattr(cifar, "FILTERS", (2, 4, 4))
        patch.setattr(cifar, "stack", _one_block)
        patch.setattr(imagenet, "WIDTHS", WIDTHS)
        shrink_rivals(patch)
        for depth in (18, 34, 50, 101, 152):
            block = BasicBlock if depth < 50 else BottleneckBlock
            patch.setitem(imagenet.TABLE_1, depth, (block, (1, 1, 1, 1)))

    def build(self, patch: Any) -> None:
        """Make all there is; ``patch`` is undone by the caller."""
        patch.chdir(self.place)
        self._data()
        self._weights()
        self._runs()

    def copy(self, to: Path, detection: bool) -> Path:
        """Return a copy of the working folder. What documents call by one name may be of two kinds."""
        shutil.copytree(self.place, to, symlinks=True, copy_function=_link_or_copy)
        kind = "detectors" if detection else "classifiers"
        for path in list((to / kind).iterdir()):
            shutil.move(path, to / ("runs" if path.is_dir() else "") / path.name)
        return to

    def run(self, *words: str | Path) -> None:
        assert self._call(*words) == 0, words

    def _data(self) -> None:
        ids = [wordnet_id for wordnet_id, _ in imagenet_classes()[:3]]
        write_images(self.home / "imagenet", ids)
        for image in (self.home / "imagenet").rglob("*.png"):
            # Where on it its class is: in the middle.
            split, wordnet_id, _ = image.relative_to(self.home / "imagenet").parts
            width, height = Image.open(image).size
            file = self.home / "imagenet" / "Annotations" / "CLS-LOC" / split / f"{image.stem}.xml"
            file.parent.mkdir(parents=True, exist_ok=True)
            middle = (width // 4, height // 4, 3 * width // 4, 3 * height // 4)
            file.write_text(xml((wordnet_id, *middle), size=(width, height)))
        for name in ("tiny-imagenet-200", "flowers", "images", "imagenette"):
            (self.home / name).symlink_to("imagenet")
        (self.place / "mine.py").write_text(
            "from torch import nn\n\n\ndef build(classes, in_channels=3):\n"
            "    layers = [nn.Conv2d(in_channels, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]\n"
            "    return nn.Sequential(*layers, nn.Linear(8, classes))\n"
        )
        for image in (self.home / "imagenet").rglob("*.png"):
            to = self.home / "tulips" / image.parent.name / f"{image.parts[-3]}-{image.name}"
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(image, to)
        files = sorted(path.relative_to(self.home) for path in (self.home / "tulips").rglob("*.png"))
        (self.home / "tulips.csv").write_text("".join(f"{file},{file.parent.name}\n" for file in files))
        batches = self.home / "data" / "cifar-10-batches-bin"
        batches.mkdir(parents=True)
        generator = torch.Generator().manual_seed(0)
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            records = torch.randint(256, (RECORDS, 3073), generator=generator, dtype=torch.uint8)
            records[:, 0] %= 10
            (batches / f"{name}.bin").write_bytes(records.numpy().tobytes())
        (self.place / "data").symlink_to(self.home / "data")
        for folder in ("images", "more"):
            (self.place / folder).mkdir()
            smooth_image(seed=1).save(self.place / folder / "1.jpg")
            smooth_image(seed=2).save(self.place / folder / "2.png")
        for name in ("cat.jpg", "image.jpg"):
            smooth_image(300, 240).save(self.place / name)
        self._boxes()

    def _boxes(self) -> None:
        devkit = write_devkit(self.home / "VOCdevkit")
        write_imagenet_det(self.home / "ILSVRC", devkit)
        # What is on the test images of 2012 is not public.
        for name in (devkit / "VOC2012/ImageSets/Main/test.txt").read_text().split():
            (devkit / "VOC2012" / "Annotations" / f"{name}.xml").unlink()
        write_coco(self.home / "coco", devkit)
        write_yolo(self.home / "yolo", devkit)
        lists = write_shapes(self.home / "cells", train=6, test=4, masks=True) / "ImageSets" / "Main"
        shutil.copy(lists / "train.txt", lists / "trainval.txt")
        (self.home / "other").symlink_to("cells")
        (self.home / "labelled").mkdir()
        for file in [*self.home.glob("cells/JPEGImages/*"), *self.home.glob("cells/Annotations/*")]:
            shutil.copy(file, self.home / "labelled")

    def _weights(self) -> None:
        names = [f"{wordnet_id} {name}" for wordnet_id, name in imagenet_classes()]
        for name in ("resnet50", "resnet101"):
            _save(self.place / "weights" / name, name, names, torch.rand(3))
        for name in ("resnet18", "resnet50"):
            self._published(f"torchvision:{name}", name, names)
        self._published("cifar:resnet20", "cifar_resnet20", CIFAR10_CLASSES)
        # VGG's fully connected layers are large whatever its filters are; any network will do.
        _save(self.place / "weights" / "vgg16", "cifar_resnet8", names, torch.rand(3))
        for folder in ("weights/resnet20", "my-weights"):
            _save(self.place / folder, "cifar_resnet20", CIFAR10_CLASSES, torch.rand(3, 32, 32))
        torch.save(build_model("resnet50", variant="v1.5").state_dict(), self.place / "resnet50.pth")
        torch.save(build_model("cifar_resnet20").state_dict(), self.place / "resnet20.th")
        authors = resnet(50, (1, 1, 1, 1), WIDTHS)
        (self.place / "ResNet-50-model.caffemodel").write_bytes(caffemodel(authors.blobs))
        write_mean(self.place / "ResNet_mean.binaryproto")

    def _published(self, name: str, network: str, classes: Any) -> None:
        """Have weights in the cache, as if they had been fetched."""
        folder = self.home / "cache" / "weights" / name.replace(":", "-")
        _save(folder, network, classes, torch.rand(3))
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"origin": {"name": name, "from": "here"}}))

    def _runs(self) -> None:
        home, runs = self.home, self.place / "runs"
        memory = set_options(IN_MEMORY)
        small = ("--data-dir", home / "data", *memory)
        for name in (
            "cifar10-resnet20",
            "cifar10-plain56",
            "cifar10-maxout",
            "digits-resnet20",
            "digits-plain56",
            "digits-highway19",
        ):
            options = small if name.startswith("cifar10") else memory
            self.run("train", name, *options, "--out", runs / name)
        for demo, name in (("plain56", "digits-plain56"), ("resnet56", "digits-resnet20")):
            shutil.copytree(runs / name, runs / "degradation" / demo)
        large = ("--data-dir", home / "flowers", *set_options(IN_FOLDERS))
        self.run("train", "imagenet-resnet101", *large, "--out", runs / "imagenet-resnet101")
        for name in ("flowers", "scratch"):
            self.run("train", "imagenet-resnet18", *large, "--out", runs / name)
        for name in ("mine", "tiny-imagenet-resnet18"):
            shutil.copytree(runs / "flowers", runs / name)
        located = ("tiny-imagenet-localization-resnet18", "--weights", runs / "flowers")
        where = ("--data-dir", home / "imagenet", "--out", runs / "located")
        self.run("locate", "train", *located, *set_options(LOCATED), *where)
        own = ("--set", "model.name=mine.py:build", *small)
        self.run("train", "cifar10-resnet20", *own, "--out", runs / "own")
        # Begun, and stopped after the first of two iterations.
        shutil.copytree(runs / "cifar10-resnet20", runs / "short")
        (runs / "short" / "results.json").unlink()
        (runs / "short" / "checkpoint-0000002.safetensors").unlink(missing_ok=True)
        shutil.copytree(runs / "short", runs / "rented")
        boxes = ("--weights", "weights/resnet101", *set_options(WITH_BOXES))
        for name, recipe, data in (
            ("cells", "voc-finetune", "cells"),
            ("small-cells", "voc-finetune", "cells"),
            ("voc07++12-resnet101", "voc07++12-resnet101", "VOCdevkit"),
            ("coco-resnet101", "coco-resnet101", "coco"),
            ("coco", "coco-resnet101-context", "coco"),
            ("det", "imagenet-det-resnet101", "ILSVRC"),
        ):
            self.run("detect", "train", recipe, *boxes, "--data-dir", home / data, "--out", runs / name)
        share = ("--set", "data.validation=0.2", "--data-dir", home / "labelled", "--out", runs / "labelled")
        self.run("detect", "train", "voc-finetune", *boxes, *share)
        masks = ("--data-dir", home / "cells", "--out", runs / "masks")
        self.run("detect", "train", "voc-finetune", "--masks", *boxes, *masks)
        self._two_kinds()
        # Studies of which nothing is there yet are looked at as well.
        for name in ("imagenet", "tiny-imagenet", "detection", "localization"):
            (runs / name).mkdir()
        self.run("reproduce", "figure1", *small, "--out", runs / "shortened")
        shutil.copytree(runs / "shortened", runs / "cifar10")
        shutil.copytree(runs / "shortened", self.place / "results" / "cifar10" / "full")
        leave = shutil.ignore_patterns("*.safetensors")
        shutil.copytree(ROOT / "results" / "imagenette", self.place / "results" / "imagenette", ignore=leave)

    def _two_kinds(self) -> None:
        """Make what has one name and two meanings: runs of classifiers, runs of detectors, and my.yaml."""
        runs = self.place / "runs"
        for kind, source in (("classifiers", "flowers"), ("detectors", "coco-resnet101")):
            for name in "abc":
                shutil.copytree(runs / source, self.place / kind / name)
        (self.place / "classifiers" / "my.yaml").write_text(find("cifar10-resnet110").to_yaml())
        begun = find("voc-finetune", DetectionRecipe)
        mine = start_from(begun, self.place / "weights" / "resnet101").to_yaml()
        (self.place / "detectors" / "my.yaml").write_text(mine)
        folder = ("--dataset", "folder", "--data-dir", self.home / "imagenet")
        for name in ("resnet50.safetensors", "resnet101.safetensors"):
            self.run("evaluate", runs / "flowers", *folder, "--save-scores", self.place / name)


def _link_or_copy(source: str, to: str) -> None:
    """Copy a file that is added to; all others are replaced whole and never changed, so that a link does."""
    if source.endswith(".jsonl"):
        shutil.copy2(source, to)
    else:
        os.link(source, to)


def _save(folder: Path, name: str, classes: Any, mean: torch.Tensor) -> None:
    torch.manual_seed(0)
    options = {"variant": "v1.5"} if name == "resnet50" else {}
    model = build_model(name, classes=len(classes), **options)
    about = {"name": name, "options": options, "classes": tuple(classes)}
    save_weights(folder, model, preprocessing=Preprocessing(mean), **about)
