"""The 1,000 classes of ImageNet 2012, in the order of its networks: that of their WordNet ids."""

import functools
from pathlib import Path


@functools.cache
def imagenet_classes() -> tuple[tuple[str, str], ...]:
    """Return each class's WordNet id and the name that torchvision gives it: ``("n01440764", "tench")``."""
    lines = Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="utf-8").splitlines()
    return tuple((line[:9], line[10:]) for line in lines)
