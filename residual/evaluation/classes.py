"""Classes of images and classes of a network, matched by name and never by position."""

import functools
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from ..class_names import composed, imagenet_classes
from ..errors import InputError, nearest


def match_classes(images: Sequence[str], network: Sequence[str], source: str) -> Tensor:
    """Return which of a network's K classes each of the M classes of some images is: int64 (M,).

    Two names mean one class when they are equal, or begin with one WordNet id, or when one is an ImageNet
    class's name and the other its WordNet id.

    Args:
        images: names of the images' classes, usually those of folders.
        network: names of the network's classes.
        source: where the images are, for messages.

    Raises:
        InputError: for a class that the network has not, or two of the network's mean.
    """
    exact = {name: k for k, name in enumerate(network)}
    meanings = [_meaning(name) for name in network]
    times = Counter(meanings)
    meant = {meaning: k for k, meaning in enumerate(meanings)}
    # Of a name in another case, which only in ImageNet may be another class.
    spelt = Counter(map(_plain, network))
    plainly = {plain: k for k, name in enumerate(network) if spelt[plain := _plain(name)] == 1}
    found = []
    for name in images:
        meaning = _meaning(name)
        if name in exact:
            found.append(exact[name])
        elif times[meaning] == 1:
            found.append(meant[meaning])
        elif not times[meaning] and _plain(name) in plainly:
            found.append(plainly[_plain(name)])
        elif several := times[meaning] or spelt[_plain(name)]:
            raise InputError(
                f"{source}: the class {name!r} means {several} of the network's classes; use its name"
            )
        else:
            raise InputError(_unknown(name, network, source))
    twice = [k for k, times in Counter(found).items() if times > 1]
    if twice:
        both = " and ".join(repr(name) for name, k in zip(images, found, strict=True) if k == twice[0])
        raise InputError(f"{source}: {both} both mean the network's class {network[twice[0]]!r}; merge them")
    return torch.tensor(found, dtype=torch.int64)


def class_among(name: str, network: Sequence[str]) -> int | None:
    """Return which of a network's classes a name means, None where it means none of them or several."""
    try:
        return int(match_classes([name], network, name)[0])
    except InputError:
        return None


def unnamed(classes: Sequence[str]) -> bool:
    """Whether the classes have no names but their numbers, as in weights imported without --classes."""
    return list(classes) == [str(k) for k in range(len(classes))]


def how_matched(images: Sequence[str], network: Sequence[str], found: Tensor) -> str | None:
    """Return a sentence on how classes were matched, or None where they are the same in the same order."""
    if tuple(images) == tuple(network):
        return None
    same = found.tolist() == list(range(len(network)))
    if same:
        return f"the {len(network):,} classes are the network's, by other names"
    if len(images) == len(network):
        return f"the {len(network):,} classes are the network's in another order; they were matched by name"
    return (
        f"the images are of {len(images):,} of the network's {len(network):,} classes, matched by name; "
        f"the network chooses among all {len(network):,}"
    )


def _unknown(name: str, network: Sequence[str], source: str) -> str:
    if unnamed(network):
        return (
            f"{source}: the network's classes have no names but 0 to {len(network) - 1}, and classes such as "
            f"{name!r} are matched by name; import the weights anew with --classes FILE (imagenet for the "
            "1,000 of ImageNet)"
        )
    known = nearest(name, network) if len(network) <= 20 or _close(name, network) else ""
    return f"{source}: the class {name!r} is not one of the network's {len(network):,} classes{known}"


def _close(name: str, network: Sequence[str]) -> bool:
    return "did you mean" in nearest(name, network)


def _meaning(name: str) -> str:
    """Return the WordNet id of a class where its name tells it, or else the name in one spelling."""
    if match := re.match(r"n\d{8}(?![0-9A-Za-z])", name):
        return match[0]
    spelled = _spelled(name)
    written, anyhow = _wordnet_ids()
    plain = spelled.casefold()
    return written.get(spelled) or anyhow.get(plain, plain)


def _spelled(name: str) -> str:
    """Return a name in one spelling."""
    return composed(name).replace("_", " ").strip()


def _plain(name: str) -> str:
    """Return a name in one spelling and one case."""
    return _spelled(name).casefold()


@functools.cache
def _wordnet_ids() -> tuple[dict[str, str], dict[str, str]]:
    """WordNet ids by the names of ImageNet's classes, as they are written, and in any case.

    Of the latter those that are one class's alone: a Cardigan is a dog, and a cardigan is worn.
    """
    names = {name: wnid for wnid, name in imagenet_classes()}
    times = Counter(map(str.casefold, names))
    return names, {name.casefold(): wnid for name, wnid in names.items() if times[name.casefold()] == 1}
