"""Weights on the Hugging Face Hub: weights folders of ours, and the ResNets and VGGs of timm.

huggingface_hub fetches them into its own cache (HF_HOME), from its own address (HF_ENDPOINT), or takes what
the cache has (HF_HUB_OFFLINE). Files that were fetched by hand come first.
"""

import errno
import hashlib
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ..errors import InputError, needs
from ..files import cache_folder, checked, damaged, first_line, read_json
from .layout import CODE_FILE, CONFIG_FILE, MODEL_FILE, PREPROCESSING_FILE
from .own import is_own
from .published import IMAGENET_NETWORKS, imagenet_names, variant_of

HUB = "https://huggingface.co"


@dataclass(frozen=True)
class Repository:
    """A repository of models on the Hub.

    Attributes:
        name: what people type.
        id: OWNER/NAME.
        revision: a branch, tag or commit; None for the newest.
    """

    name: str
    id: str
    revision: str | None

    @property
    def by_hand(self) -> Path:
        """Where files are put that were fetched by hand."""
        return cache_folder() / "downloads" / self.id.replace("/", "--")


@dataclass(frozen=True)
class ForeignWeights:
    """A state dict of timm's.

    Attributes:
        file: where it is on this machine.
        network: in ``build_model``.
        about: what ``import_weights`` is told of it.
        key: tells it from all others, as the name of a folder.
    """

    file: Path
    network: str
    about: dict[str, Any]
    key: str


class TimmSettings(BaseModel):
    """What is read of ``pretrained_cfg`` in timm's config.json."""

    model_config = ConfigDict(strict=True)

    input_size: list[int] | None = Field(None, min_length=3)
    test_input_size: list[int] | None = Field(None, min_length=3)
    crop_pct: float | None = Field(None, gt=0)
    test_crop_pct: float | None = Field(None, gt=0)
    mean: list[float] | None = None
    std: list[float] | None = None
    num_classes: int | None = None
    label_names: list[str] | None = None


class TimmConfig(BaseModel):
    """... and of all of it."""

    model_config = ConfigDict(strict=True)

    pretrained_cfg: TimmSettings | None = None
    num_classes: int | None = None
    label_names: list[str] | None = None


def repository(name: str) -> Repository:
    """Return the repository that a name stands for: "timm:resnet50.a1_in1k", "hf:OWNER/NAME@REVISION".

    Raises:
        InputError: when the name is not written so.
    """
    source, _, rest = name.partition(":")
    identity, _, revision = rest.partition("@")
    identity = f"timm/{identity}" if source == "timm" else identity
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", identity):
        usual = "timm:NAME, as timm:resnet50.a1_in1k" if source == "timm" else "hf:OWNER/NAME"
        raise InputError(f"{name} is not a name of weights on the Hugging Face Hub; write {usual}")
    return Repository(name, identity, revision or None)


def endpoint_of_hub() -> str:
    """Return the Hub's address, or the one that HF_ENDPOINT names in its place."""
    return os.environ.get("HF_ENDPOINT") or HUB


def look_up(where: Repository) -> Path | ForeignWeights:
    """Return what a repository holds: a weights folder of ours, ready to be read, or weights of timm's.

    Raises:
        InputError: when it cannot be reached, is not there, or holds something else.
    """
    config = _fetch(where, CONFIG_FILE)
    content = read_json(config, dict)
    if str(content.get("format")).startswith("residual "):
        _fetch(where, MODEL_FILE)
        preprocessing = content.get("preprocessing")
        if isinstance(preprocessing, dict) and preprocessing.get("mean") == "per-pixel":
            _fetch(where, PREPROCESSING_FILE)
        model = content.get("model")
        if isinstance(model, dict) and is_own(str(model.get("name"))):
            _fetch(where, CODE_FILE)  # which runs only where its user has asked for that
        return config.parent
    network = content.get("architecture")
    if network not in IMAGENET_NETWORKS:
        what = f"a {network}" if network else "neither a weights folder of residual nor a network of timm's"
        raise InputError(f"{where.name} holds {what}; of timm's are known: {', '.join(IMAGENET_NETWORKS)}")
    checked(content, TimmConfig, lambda reason: damaged(config, reason))
    tensors = _fetch(where, MODEL_FILE)
    # A commit tells the Hub's files from others; those that were put there by hand may be exchanged.
    version = _sha256(config, tensors) if config.parent == where.by_hand else config.parent.name
    key = f"hf-{where.id.replace('/', '--')}-{version[:12]}"
    return ForeignWeights(tensors, network, _about(network, content), key)


def _about(network: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return what timm's config.json says, as ``import_weights`` is told it."""
    used = content.get("pretrained_cfg") or {}
    classes = content.get("label_names") or used.get("label_names")
    if classes is None and (content.get("num_classes") or used.get("num_classes")) == 1000:
        classes = imagenet_names()
    # As timm tests it: at the size and the share of the image that are meant for that, where they are named.
    size = (used.get("test_input_size") or used.get("input_size") or (3, 224, 224))[-1]
    share = used.get("test_crop_pct") or used.get("crop_pct") or 224 / 256
    return {
        "variant": variant_of(network),
        "classes": classes,
        "mean": used.get("mean"),
        "std": used.get("std"),
        "view": (size, math.floor(size / share)),
    }


def _fetch(where: Repository, name: str) -> Path:
    """Return a file of a repository, fetched if it is not here."""
    if (put := where.by_hand / name).is_file():
        return put
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError:
        raise needs(where.name, "huggingface_hub", "hub") from None
    endpoint = endpoint_of_hub()
    try:
        file = huggingface_hub.hf_hub_download(where.id, name, revision=where.revision, endpoint=endpoint)
    except errors.RepositoryNotFoundError:
        raise _cannot(where, name, endpoint, "there is no such repository, or it is not public") from None
    except errors.RevisionNotFoundError:
        raise _cannot(where, name, endpoint, f"it has no revision {where.revision}") from None
    except errors.LocalEntryNotFoundError:
        raise _cannot(where, name, endpoint, "there is no connection, and it is not in the cache") from None
    except errors.EntryNotFoundError:
        raise _cannot(where, name, endpoint, "the repository has no such file") from None
    # Connections raise what the HTTP library of its version does; disks raise OSErrors.
    except Exception as error:
        full = getattr(error, "errno", None) == errno.ENOSPC
        reason = "the disk is full (HF_HOME names another folder)" if full else first_line(error)
        raise _cannot(where, name, endpoint, reason) from None
    _check(where, Path(file), endpoint)
    return Path(file)


def _check(where: Repository, file: Path, endpoint: str) -> None:
    """Raise an InputError for a large file whose checksum is another; the cache calls it by its SHA-256."""
    blob = file.resolve()
    if re.fullmatch(r"[0-9a-f]{64}", blob.name):
        found = _sha256(blob)
        if found != blob.name:
            reason = f"expected the SHA-256 {blob.name[:16]}..., found {found[:16]}...; remove {blob}"
            raise _cannot(where, file.name, endpoint, reason)


def _sha256(*files: Path) -> str:
    """Return the SHA-256 of the content of files, one after the other."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as content:
            hashlib.file_digest(content, lambda: digest)
    return digest.hexdigest()


def _cannot(where: Repository, name: str, endpoint: str, reason: str) -> InputError:
    return InputError(
        f"cannot get {name} of {where.name} from {endpoint}: {reason}; try again, or fetch the files of "
        f"{HUB}/{where.id} by hand and put them into {where.by_hand}"
    )
