"""A folder with one of every file that is read, and what becomes of files in it: the ground that is attacked.

Runs are made by the command itself, so that what they leave behind is always what they leave behind today.
"""

import importlib
import inspect
import os
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from caffe import caffemodel, resnet, write_mean
from conftest import BEGUN, SEVEN, TINY, save_network, set_options, smooth_image, write_images
from hypothesis import strategies as st
from located import SQUARES, write_classifier, write_tiny
from scipy.io import savemat
from shapes import write_coco, write_devkit, write_imagenet_det, write_shapes, write_yolo
from zygote import Case, Zygote

import residual
from residual import build_model
from residual.data.images import FORMATS, READABLE
from residual.recipes import DetectionRecipe, find
from residual.training.folder import RunFolder

#: Runs of a second: six iterations, with two checkpoints and two evaluations on the way.
QUICK = ["schedule.iterations=6", "evaluate_every=2", "checkpoint_every=2"]
IN_MEMORY = [*TINY, *set_options([*QUICK, "batch.size=16", "batch.bn_group=16", "schedule.warmup=null"])]
IN_FOLDERS = ["model.name=cifar_resnet8", "data.folder.size=16", "data.folder.shorter_side=[18,24]", *QUICK]
IN_FOLDERS += ["batch.size=4", "batch.bn_group=4", "schedule.epochs=null", "schedule.learning_rate=0.01"]
WITH_BOXES = [*BEGUN, *QUICK, "schedule.iterations=4"]
LOCATED = ["locate", "train", "tiny-imagenet-localization-resnet18", "--weights", "classifier",
           "--data-dir", "located",
           *set_options([*SQUARES, *QUICK, "batch.size=4", "schedule.iterations=4"])]  # fmt: skip
REFINED = ["locate", "train", "tiny-imagenet-localization-rcnn-resnet18", "--weights", "runs/located",
           "--data-dir", "located",
           *set_options(["name=refined", *QUICK, "batch.size=4", "batch.at_once=4", "rcnn.proposals=3",
                         "schedule.epochs=null", "schedule.iterations=4"])]  # fmt: skip
#: Where the ground keeps what the user's cache folder keeps.
CACHE = {"RESIDUAL_CACHE": "cache", "HOME": "home"}
#: How the names of files end of which a folder has many that are alike.
MANY = (".png", ".JPEG", ".xml", ".bin")
#: Images of CIFAR-10 in each of its files, which have 10,000.
RECORDS = 2


def lay(ground: Path, zygote: Zygote) -> Path:
    """Make the ground in a folder that is not there yet."""
    ground.mkdir()
    (ground / "home").mkdir()
    _images(ground)
    _boxes(ground)
    _networks(ground)
    _texts(ground)
    _no_files(ground)
    runs = {
        "runs/digits": ["train", *IN_MEMORY],
        "runs/held-out": [*["train", "finetune", "--weights", "weights", "--data-dir", "images/train"],
                          *set_options(["data.validation=0.3",
                          *(s for s in IN_FOLDERS if "model" not in s)])],
        "runs/located": LOCATED,
        "runs/refined": REFINED,
        "runs/detector": ["detect", "train", "voc-finetune", "--data-dir", "voc", *set_options(WITH_BOXES)],
    }  # fmt: skip
    for out, words in runs.items():
        _run(zygote, ground, [*words, "--out", out])
    _run(zygote, ground, ["statistics", "images", "--size", "16"])
    scores = [
        "evaluate",
        "runs/held-out",
        "--save-scores",
        "scores.safetensors",
        "--data-dir",
        "images",
        "--dataset",
        "folder",
    ]
    _run(zygote, ground, scores)
    begun = shutil.copytree(ground / "runs/digits", ground / "runs/begun")
    for name in ("results.json", "report.html", "scores.safetensors"):
        (begun / name).unlink()
    shutil.rmtree(begun / "weights")
    for path in ground.rglob("checkpoint-*"):
        if "begun" not in path.parts:
            path.unlink()
    return ground


def _run(zygote: Zygote, ground: Path, words: list[str]) -> None:
    done = zygote.attempt(Case(words, str(ground), CACHE, patience=300))
    assert done.code == 0, done.output


def _images(ground: Path) -> None:
    write_images(ground / "images", sizes=((22, 18), (18, 20), (20, 20)))
    (ground / "formats").mkdir()
    for name in READABLE:
        for suffix in FORMATS[name][:1]:
            smooth_image(16, 12).save(ground / "formats" / f"image{suffix}", name)
    smooth_image(16, 12).convert("P").save(ground / "formats" / "palette.gif")
    smooth_image(16, 12).convert("L").save(ground / "formats" / "grey.tif", compression="tiff_lzw")
    flat = ground / "flat"
    (flat / "val").mkdir(parents=True)
    for number in (1, 2):
        smooth_image(16, 12).save(flat / "val" / f"v{number}.png")
    (flat / "val.txt").write_text("v1.png ant\nv2.png bee\n")
    devkit = ground / "devkit" / "ILSVRC2012_devkit_t12" / "data"
    devkit.mkdir(parents=True)
    shutil.copytree(flat / "val", ground / "devkit" / "val")
    kinds = [("ILSVRC2012_ID", "<i4"), ("WNID", "O"), ("words", "O")]
    savemat(
        str(devkit / "meta.mat"), {"synsets": np.array([(1, "n02", "dog"), (2, "n01", "cat")], dtype=kinds)}
    )
    (devkit / "ILSVRC2012_validation_ground_truth.txt").write_text("2\n1\n")
    tiny = write_images(ground / "tiny", ("n01443537", "n01629819"), 4, 2, ((16, 12),))
    (tiny / "wnids.txt").write_text("n01443537\nn01629819\n")
    (tiny / "words.txt").write_text("n01443537\tgoldfish\nn01629819\tEuropean fire salamander\n")
    batches = ground / "cifar" / "cifar-10-batches-bin"
    batches.mkdir(parents=True)
    for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
        (batches / f"{name}.bin").write_bytes(bytes(RECORDS * 3073))
    (batches / "batches.meta.txt").write_text("\n".join("abcdefghij"))


def _boxes(ground: Path) -> None:
    lists = write_shapes(ground / "voc", train=6, test=3, masks=True) / "ImageSets" / "Main"
    shutil.copy(lists / "train.txt", lists / "trainval.txt")
    devkit = write_devkit(ground / "devkits")
    coco = write_coco(ground / "coco", devkit)
    write_yolo(ground / "yolo", devkit)
    write_imagenet_det(ground / "det", devkit)
    write_tiny(ground / "located", train=2, val=1)
    shutil.rmtree(devkit)
    for split in ("train", "val"):  # as the splits of VOC's layout are called
        (coco / f"{split}2014").rename(coco / split)
        annotations = coco / "annotations"
        (annotations / f"instances_{split}2014.json").rename(annotations / f"instances_{split}.json")


def _networks(ground: Path) -> None:
    save_network(ground / "weights", classes=SEVEN, mean=torch.rand(3))
    write_classifier(ground / "classifier")
    state = build_model("cifar_resnet8", classes=10).state_dict()
    torch.save({"state_dict": state, "epoch": 3}, ground / "network.pth")
    torch.save(state, ground / "older.th", _use_new_zipfile_serialization=False)
    (ground / "network.caffemodel").write_bytes(caffemodel(resnet(50, (3, 4, 6, 3), (2, 2, 2, 2)).blobs))
    write_mean(ground / "mean.binaryproto")
    (ground / "network.onnx").write_bytes(b"\x08\x0a\x12\x07pytorch:\x85\x01\n\x0enode_Conv_1")
    (ground / "mine.py").write_text("import nothing_that_there_is\n")


def _texts(ground: Path) -> None:
    (ground / "recipe.yaml").write_text(find("digits-resnet20").to_yaml())
    (ground / "boxes.yaml").write_text(find("voc-finetune", DetectionRecipe).to_yaml())
    (ground / "classes.txt").write_text("".join(f"{name}\n" for name in SEVEN))
    images = sorted((ground / "images").rglob("*.png"))
    rows = [f"{p.relative_to(ground)},{p.parent.name},{p.parts[-3]}\n" for p in images]
    (ground / "images.csv").write_text("path,class,split\n" + "".join(rows))


#: What lies on the ground and is no file.
NO_FILE_NAMES = ("pipe.jpg", "dangling.png", "loop", "/dev/null", "/dev/zero", "caf\udce9.png")


def _no_files(ground: Path) -> None:
    os.mkfifo(ground / "pipe.jpg")
    (ground / "dangling.png").symlink_to("no/such/file")
    (ground / "loop").symlink_to("loop")
    smooth_image(16, 12).save(ground / NO_FILE_NAMES[-1])


def files_of(ground: Path) -> list[str]:
    """Return the files of a ground, below it; of a dataset's images, say, the first two of a folder."""
    found: dict[tuple[Path, str], list[str]] = {}
    for path in sorted(ground.rglob("*")):
        if path.is_file() and path.name != ".lock":
            alike = path.suffix if path.suffix in MANY else path.name
            found.setdefault((path.parent, alike), []).append(path.relative_to(ground).as_posix())
    return [file for files in found.values() for file in files[:2]]


# --- damage ---

#: What may stand in a text in place of something else.
TEXTS = [b"{}", b"[1]", b"null", b"[" * 9999, b'{"a":' * 999, b"9" * 5000, b"1e999", b"-1", b"NaN", b"0",
         b"1" * 19, b"\xff\xfe",
         b"\xef\xbb\xbf", b"caf\xe9", b"\x00", b"&a [*a]", b"2026-13-45", b"\\ud83d", b"<!DOCTYPE a>",
         b"../../x",
         "é😀".encode(), b"\r", b",,,", b'"', b"true", b"1e308", b"18446744073709551616",
         b" " * 99]  # fmt: skip


def damages() -> st.SearchStrategy[Callable[[bytes], bytes]]:
    """Return ways to damage the content of a file."""
    place = st.floats(0, 1, exclude_max=True)

    def cut(at: float) -> Callable[[bytes], bytes]:
        return lambda content: content[: int(at * len(content))]

    def gone(at: float, count: int) -> Callable[[bytes], bytes]:
        return lambda content: content[: int(at * len(content))] + content[int(at * len(content)) + count :]

    def twice(at: float, count: int) -> Callable[[bytes], bytes]:
        return lambda content: content[: int(at * len(content)) + count] + content[int(at * len(content)) :]

    def flipped(places: list[tuple[float, int]]) -> Callable[[bytes], bytes]:
        def flip(content: bytes) -> bytes:
            changed = bytearray(content)
            for at, bit in places if changed else ():
                changed[int(at * len(changed))] ^= 1 << bit
            return bytes(changed)

        return flip

    def put(at: float, text: bytes, over: bool) -> Callable[[bytes], bytes]:
        def replace(content: bytes) -> bytes:
            start = int(at * len(content))
            return content[:start] + text + content[start + over * len(text) :]

        return replace

    def number(at: float, text: bytes) -> Callable[[bytes], bytes]:
        def replace(content: bytes) -> bytes:
            digits = [n for n, byte in enumerate(content[:20000]) if chr(byte).isdigit()]
            if not digits:
                return text
            start = digits[int(at * len(digits))]
            return content[:start] + text + content[start + 1 :]

        return replace

    def whole(text: bytes) -> Callable[[bytes], bytes]:
        return lambda content: text

    def encoded(name: str) -> Callable[[bytes], bytes]:
        return lambda content: content.decode("latin1").encode(name, "replace")

    texts = st.sampled_from(TEXTS)
    return st.one_of(
        st.builds(cut, place),
        st.builds(gone, place, st.integers(1, 200)),
        st.builds(twice, place, st.integers(1, 200)),
        st.builds(flipped, st.lists(st.tuples(place, st.integers(0, 7)), min_size=1, max_size=8)),
        # The beginning is where files say what they are.
        st.builds(
            flipped,
            st.lists(st.tuples(place.map(lambda x: x / 40), st.integers(0, 7)), min_size=1, max_size=4),
        ),
        st.builds(put, place, texts, st.booleans()),
        st.builds(number, place, texts),
        st.builds(whole, texts | st.binary(max_size=64)),
        st.builds(encoded, st.sampled_from(["utf-16", "utf-32-be", "utf-7", "cp037"])),
    )


# --- readers ---

#: How the name of a function begins that reads what its argument of PATHS names.
READ = (
    *(
        "read",
        "load",
        "decode",
        "index_",
        "scan",
        "parts_of",
        "holds",
        "weights_in",
        "recorded",
        "remembered",
    ),
    *("class_names", "list_", "stored_size", "is_detector", "unpack", "trusted"),
)
PATHS = ("path", "file", "folder", "data_dir", "root")

Reader = Callable[[Path], Any]


def readers(given: dict[str, Any]) -> Iterator[tuple[str, Reader]]:
    """Yield every function of the package that reads a file or a folder, as one of its path alone.

    Args:
        given: values for other parameters that have no default, by their names.

    Raises:
        KeyError: for a parameter that has none.
    """
    for module in pkgutil.walk_packages(residual.__path__, "residual."):
        if module.name.endswith("__main__"):
            continue
        here = importlib.import_module(module.name)
        for name, function in vars(here).items():
            if inspect.isfunction(function) and name.startswith(READ):
                own = inspect.unwrap(function).__module__ == module.name
                if own and (reader := _of_path(function, given)):
                    yield f"{module.name}.{name}", reader
    for name in (
        "sessions",
        "results",
        "metrics",
        "recipe",
        "read_start",
        "started_from",
        "check_recipe",
        "held_out",
    ):
        more = {"recipe": given["recipe"]} if name == "results" else {}
        yield f"RunFolder.{name}", lambda path, n=name, m=more: getattr(RunFolder(path), n)(**m)


def _of_path(function: Callable[..., Any], given: dict[str, Any]) -> Reader | None:
    """Return a function as one of its path alone; None where it has no path."""
    parameters = inspect.signature(function).parameters.values()
    paths = [p.name for p in parameters if p.name in PATHS and "Path" in str(p.annotation)]
    if not paths:
        return None
    more = {
        p.name: given[p.name]
        for p in parameters
        # What is read by a switch that is off, as masks are, is read as well.
        if p.default is p.empty or (p.default is False and p.name in given)
        if p.name != paths[0] and p.kind is not p.VAR_POSITIONAL
    }
    return lambda path: function(**{paths[0]: path}, **more)
