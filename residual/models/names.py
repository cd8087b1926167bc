"""Weights by name: what a name stands for, and the weights folder that is made of it.

torchvision:resnet50               torchvision's IMAGENET1K_V1, whose recipe is nearest to the paper's
torchvision:resnet50.v2            its IMAGENET1K_V2
cifar:resnet20                     the public CIFAR-10 weights of akamaster/pytorch_resnet_cifar10
timm:resnet50.a1_in1k              timm's, on the Hugging Face Hub
hf:OWNER/NAME, hf:OWNER/NAME@REV   a weights folder of ours on the Hub, or a ResNet or VGG in timm's form

The cache folder (files.py) keeps them: ``weights/`` is weights folders, ``downloads/`` files on their way, or
put there by hand.
"""

from collections.abc import Callable
from mimetypes import guess_type
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from ..download import PublishedFile, fetch, matches
from ..errors import InputError, nearest
from ..files import cache_folder, cannot_write, read_json, remove_half_written
from .hub import look_up, repository
from .layout import CONFIG_FILE
from .published import PUBLISHED_NETWORKS, PublishedWeights, catalogue

#: What stands before the colon of a name.
SOURCES = ("torchvision", "timm", "hf", "cifar")

#: What to do where the cache cannot be written.
ROOM = "name another cache folder with the environment variable RESIDUAL_CACHE"


def is_name(given: Path | str) -> bool:
    """Whether something names published weights and is no path: "torchvision:resnet50"."""
    source, colon, _ = str(given).partition(":")
    return bool(colon) and source in SOURCES


def check(given: Path | str) -> None:
    """Raise an InputError where there is neither a folder nor a name of weights, before other work is done.

    Nothing is fetched: whether the Hub has what a name stands for shows later.
    """
    text = Path(given).as_posix()
    if is_name(given):
        _known(text) if text.startswith(("torchvision:", "cifar:")) else repository(text)
    elif Path(given).is_file():
        if (guess_type(text, strict=False)[0] or "").startswith("image/"):
            raise InputError(
                f"{given} is an image, where weights are expected: a folder or a name, before the images"
            )
        raise InputError(f"{given} is a file; make a weights folder of it with residual import")
    elif not Path(given).is_dir():
        raise InputError(f"there is no folder {given}{_hint(text)}")


def folder_of(given: Path | str, import_weights: Callable[..., Any]) -> Path:
    """Return the weights folder that a name stands for; what the cache has not got is fetched.

    Args:
        import_weights: that of weights.py, which makes a weights folder of a state dict.

    Raises:
        InputError: for an unknown name, for all that a download may end in, and for a full cache.
    """
    name = Path(given).as_posix()
    if name.startswith(("torchvision:", "cifar:")):
        known = _known(name)

        def make(folder: Path) -> None:
            file, downloaded = _have(known.file)
            origin = {"name": known.name, "from": known.file.url}
            import_weights(file, known.network, folder, origin=origin, **known.about)
            if downloaded:
                file.unlink()

        return _made_once(known.name.replace(":", "-"), make)
    there = repository(name)
    found = look_up(there)
    if isinstance(found, Path):
        return found
    origin = {"name": name, "from": f"{there.id} ({found.file.parent.name})"}
    return _made_once(
        found.key,
        lambda folder: import_weights(found.file, found.network, folder, origin=origin, **found.about),
    )


def cached() -> dict[str, Path]:
    """Return the weights folders in the cache by the names of what they hold."""
    # What a killed process left half written begins with a dot.
    files = sorted((cache_folder() / "weights").glob("[!.]*/" + CONFIG_FILE))
    # Where the user named a folder as the cache, theirs may lie there as well.
    origins = {file.parent: read_json(file, dict).get("origin") for file in files}
    return {origin["name"]: folder for folder, origin in origins.items() if origin}


def _made_once(key: str, make: Callable[[Path], Any]) -> Path:
    """Return a folder of the cache; of several processes one makes it, whole, and the others wait for it."""
    folder = cache_folder() / "weights" / key
    if not folder.exists():
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.with_name(f".{key}.lock")):
                if not folder.exists():
                    remove_half_written(folder.parent, key)
                    make(folder)
        except OSError as error:
            raise InputError(f"{cannot_write(folder, error)}; {ROOM}") from None
    return folder


def _have(published: PublishedFile) -> tuple[Path, bool]:
    """Return a published file on this machine, and whether it was downloaded for this call alone."""
    theirs = Path(torch.hub.get_dir()) / "checkpoints" / published.name
    if theirs.is_file() and matches(published, theirs):
        return theirs, False  # torchvision has downloaded it
    file = cache_folder() / "downloads" / published.name
    return file, fetch(published, file, ROOM)


def _known(name: str) -> PublishedWeights:
    # torchvision calls them IMAGENET1K_V1 and IMAGENET1K_V2.
    plain = name.lower().replace(".imagenet1k_", ".").removesuffix(".v1")
    known = catalogue()
    if plain not in known:
        raise InputError(f"there are no weights {name!r}{nearest(plain, known)} (residual weights lists all)")
    return known[plain]


def _hint(text: str) -> str:
    """Return what else may have been meant by a folder that is not there."""
    wanted = text.rpartition("/")[2].lower().removeprefix("cifar_")
    # torchvision, which takes seconds to import, is not asked for the names of what it has not got.
    known = catalogue() if wanted in PUBLISHED_NETWORKS else ()
    if meant := [name for name in known if name.partition(":")[2].partition(".")[0] == wanted]:
        return f"; published weights are {' or '.join(meant)}"
    if "/" in text:
        return ""
    if ":" in text:
        return f", and names of weights begin with {', '.join(f'{source}:' for source in SOURCES)}"
    return "; residual weights lists published ones"
