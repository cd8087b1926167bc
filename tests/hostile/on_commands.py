"""Command lines made from the command tree itself: any command, any option, anything in a value's place.

A new command or option is attacked without anyone writing a case. However a line ends, it ends in time, with
a documented exit code, and without a traceback.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from attacks import Figures, always_the_same
from conftest import set_options
from documents import settings_for
from ground import CACHE, IN_FOLDERS, NO_FILE_NAMES, WITH_BOXES, files_of
from hypothesis import given
from hypothesis import strategies as st
from zygote import MOST, Case, Zygote, copied

from residual.cli import app
from residual.recipes import DetectionRecipe, find

#: Well; wrong input; --minutes is over; asked to end.
ENDS = (0, 2, 142, 143)

NUMBERS = ["0", "1", "2", "3", "8", "16", "20", "100", "-1", "1000000", "2147483648",
           "9223372036854775808", "1" * 30,
           "0.5", "-0.5", "1e3", "1e999", "nan", "inf", "", "x", "0x10", "1_000", " 7", "١"]  # fmt: skip
TEXTS = ["", " ", "x", "-", "--", "é", "\udce9", "a b", "a=b", "=", "*", "[", "../..", "1,2", "16,24",
         "0.5,0.5,0.5", ",", "auto",
         "cpu", "cuda", "cuda:99", "mps", "digits", "cifar10", "folder", "train", "val", "voc",
         "2007/test", "ant", "somebody/name",
         "A", "v1.5", "torchvision:resnet18", "hf:a/b", "timm/resnet18", "mit", "x" * 300, "%s", "{}",
         "\x1b[31m", "\n"]  # fmt: skip
NETWORKS = ["cifar_resnet8", "cifar_plain20", "cifar_resnet1202", "resnet18", "resnet50", "vgg16",
            "cifar_highway19", "resnet999",
            "mine.py:build", "recipe.yaml:build", "weights"]  # fmt: skip
RECIPES = ["digits-resnet20", "digits-plain56", "cifar10-resnet20", "finetune", "imagenet-resnet18",
           "voc-finetune",
           "coco-resnet101", "recipe.yaml", "boxes.yaml", "digits-resnet-20",
           "weights/config.json"]  # fmt: skip
#: New files; some cannot be made.
NEW = ["new", "new.png", "new.svg", "new.onnx", "new.safetensors", "new.pth", "new.csv", "new.html",
       "no/such/new.png",
       "x" * 300, "recipe.yaml/new", "runs"]  # fmt: skip
#: What an argument or option is most often about, by its name.
USUAL = {
    "weights": ["runs/digits", "runs/held-out", "runs/detector", "weights", "runs/begun"],
    "run": ["runs/digits", "runs/held-out", "runs/detector", "runs/begun"],
    "members": ["runs/digits", "runs/held-out", "scores.safetensors"],
    "images": ["formats", "images/val", "formats/image.png", "formats/*.jpg"],
    "named": ["formats", "voc/JPEGImages", "formats/image.png"],
    "data_dir": ["images", "images/train", "images.csv", "voc", "coco", "yolo", "flat", "devkit", "tiny",
                 "cifar"],
    "recipe": RECIPES,
    "model": NETWORKS,
    "file": ["network.pth", "older.th", "network.caffemodel", "weights/model.safetensors", "network.onnx"],
    "mean": ["mean.binaryproto", "0.5,0.5,0.5", "0,0,0"],
    "classes": ["classes.txt", "3", "10"],
    "split": ["train", "test", "val"],
    "dataset": ["folder", "digits", "images"],
    "out": ["new"],
    "device": ["cpu", "auto"],
    "depths": ["20", "56"],
    "minutes": ["0.01"],
}  # fmt: skip
USUAL["runs"] = USUAL["run"]
USUAL["name"] = [*RECIPES, "somebody/name"]


def keys_of(plain: Any, prefix: str = "") -> Iterator[str]:
    """Yield the keys of a recipe as --set has them."""
    for key, value in plain.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from keys_of(value, f"{prefix}{key}.")


KEYS = sorted(
    {
        *keys_of(find("imagenet-resnet18").model_dump()),
        *keys_of(find("voc-finetune", DetectionRecipe).model_dump()),
    }
)


def commands(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command by its words, groups too."""
    command = command or typer.main.get_command(app)
    yield words, command
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


def values(parameter: Any, paths: list[str]) -> st.SearchStrategy[str]:
    """Return what may stand as the value of an argument or option."""
    kind = str(getattr(parameter, "type_descriptor", None) or getattr(parameter, "type", ""))
    odd = st.sampled_from(TEXTS) | st.sampled_from(NUMBERS) | st.sampled_from([*paths, *NEW])
    if parameter.name == "settings":
        key = st.sampled_from([*KEYS, "no.such.key", "data.folder.size"])
        value = st.sampled_from([*NUMBERS, *TEXTS, "null", "true", "[1,2]", "[]", "{}", "[" * 500])
        return st.builds("{}={}".format, key, value) | odd
    choices = [choice.strip(" '\"") for choice in kind.partition("Literal[")[2].partition("]")[0].split(",")]
    usual = USUAL.get(parameter.name) or (choices if choices != [""] else None)
    if usual is None:
        usual = NUMBERS if "int" in kind or "float" in kind else [*paths, *NEW] if "Path" in kind else TEXTS
    # Mostly what makes sense, so that lines come far.
    return st.one_of(*[st.sampled_from(usual)] * 4, odd)


def lines(paths: list[str]) -> st.SearchStrategy[list[str]]:
    """Return command lines."""
    known = list(commands())

    @st.composite
    def line(draw: Any) -> list[str]:
        words, command = draw(st.sampled_from(known))
        typed = list(words)
        for parameter in command.params:
            is_option = parameter.opts[0].startswith("-")
            if is_option and not draw(st.sampled_from([parameter.required, parameter.required, False, True])):
                continue
            if getattr(parameter, "is_flag", False):
                typed.append(draw(st.sampled_from([*parameter.opts, *parameter.secondary_opts])))
                continue
            several = parameter.nargs == -1 or getattr(parameter, "multiple", False)
            for value in draw(st.lists(values(parameter, paths), min_size=1, max_size=3 if several else 1)):
                typed += [draw(st.sampled_from(parameter.opts)), value] if is_option else [value]
        if words[-1:] == ("train",) or words[:1] == ("reproduce",):
            quick = WITH_BOXES if "detect" in words else IN_FOLDERS
            with_these = draw(st.sampled_from([quick, settings_for([*words, "x", "x"]), []]))
            typed += set_options(with_these) if words[1:2] not in (("report",), ("complexity",)) else []
        slip = draw(st.integers(0, 19))
        if slip == 0 and typed:
            del typed[draw(st.integers(0, len(typed) - 1))]
        elif slip == 1:
            typed.insert(
                draw(st.integers(0, len(typed))), draw(st.sampled_from(["--no-such", "--help", *TEXTS]))
            )
        elif slip == 2 and typed:
            typed.append(typed[draw(st.integers(0, len(typed) - 1))])
        return [word.replace("\0", "") for word in typed]

    return line()


def attack(ground: Path, zygote: Zygote, examples: int, figures: Figures) -> Counter[str]:
    """Try command lines, each in a copy of the ground of its own; return how often each command was."""
    paths = [*files_of(ground)[::3], "runs", ".", "..", "no/such/file", *NO_FILE_NAMES]
    which = Counter[str]()
    names = {words: " ".join(words) for words, _ in commands()}

    @always_the_same(examples)
    @given(words=lines(paths))
    def one(words: list[str]) -> None:
        figures.tried("command lines")
        which[names.get(tuple(words[:2]), names.get(tuple(words[:1]), ""))] += 1
        with copied(ground) as place:
            done = zygote.attempt(Case(words, str(place), CACHE))
        what = f"{' '.join(words[:2])} of {words}: {done.code}: {done.output[-500:]}"
        if "Traceback" in done.output or done.code == 70:
            figures.fault("traceback", what)
        elif done.hung:
            figures.fault("hang", what)
        elif done.code not in ENDS or (done.code == 143 and not done.asked):
            figures.fault("wrong exit code", what)
        elif done.code == 2 and not done.output.strip():
            figures.fault("no sentence", what)
        if done.memory > MOST:
            figures.fault("above 2 GB", f"{what[:300]} {done.memory / 1e9:.1f} GB")
        figures.note(f"with {done.code}")

    one()
    return which
