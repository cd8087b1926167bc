"""A set with boxes of several classes, drawn from Tiny ImageNet's own (benchmarks/several_classes.py)."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, environment
from located import WNIDS, write_tiny
from PIL import Image

from residual.data.boxes import BoxDataset
from residual.data.voc import load_voc

SCRIPT = ROOT / "benchmarks" / "several_classes.py"


def run(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, env=environment()
    )


def pixels(dataset: BoxDataset) -> list[bytes]:
    return [image.path.read_bytes() for image in dataset.images]


@pytest.mark.long
def test_mosaics_have_the_boxes_of_their_images(tmp_path: Path) -> None:
    tiny = write_tiny(tmp_path / "tiny", train=60, val=20)
    few = ("--classes", "1", "--train", "3", "--test", "1")
    for folder in ("mosaics", "again"):
        told = run(tiny, tmp_path / folder, *few)
        assert told.returncode == 0, told.stderr
        assert "trainval: 3 images; " in told.stdout
    sets = [load_voc(tmp_path / folder, ("trainval", "test")) for folder in ("mosaics", "again")]
    for found in sets:
        assert found.notes == ()
        assert [image.size for image in found.images] == [(256, 256)] * 4
        assert len(found.classes) == 1
        assert found.counts()[0] > 0
    assert pixels(sets[0]) == pixels(sets[1])
    assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(sets[0].images, sets[1].images, strict=True))
    # Tiny ImageNet's images are a square each, of its class's colour, on dark noise: its edges are the box's.
    ((wnid, colour),) = ((w, c) for w, c in WNIDS.items() if sets[0].classes == (f"name of {w}",))
    for image in sets[0].images:
        with Image.open(image.path) as opened:
            mosaic = np.array(opened.convert("RGB")).astype(int)
        near = (abs(mosaic - colour) < 60).all(axis=2)
        boxes = np.zeros_like(near)
        for x1, y1, x2, y2 in image.boxes.int().tolist():
            boxes[y1:y2, x1:x2] = True
        # JPEG blurs edges.
        assert (near & boxes).sum() > 0.9 * max(near.sum(), boxes.sum()) > 0, wnid


@pytest.mark.long
def test_what_cannot_be_drawn_has_its_sentence(tmp_path: Path) -> None:
    tiny, large = (
        write_tiny(tmp_path / "tiny", train=2, val=2),
        write_tiny(tmp_path / "large", train=30, val=2),
    )
    damaged, resized = (write_tiny(tmp_path / name) for name in ("damaged", "resized"))
    for image in damaged.rglob("*.JPEG"):
        image.write_bytes(image.read_bytes()[:-200])
    for image in resized.rglob("*.JPEG"):
        Image.new("RGB", (96, 96)).save(image)
    few = ("--classes", "1", "--train", "1", "--test", "1")
    for arguments, sentence in (
        ((tiny, tiny), f"{tiny} exists already; name a new folder"),
        ((tiny, tmp_path / "out"), "has 3 classes; --classes is at most 2, so that others are left"),
        (
            (tiny, tmp_path / "out", "--classes", "1"),
            "has too few images for 300 mosaics; lower --train or --test",
        ),
        ((large, tmp_path / "out", "--classes", "1", "--train", "1"), "too few images for 100 mosaics"),
        ((tmp_path / "no", tmp_path / "out"), "there is no folder"),
        ((damaged, tmp_path / "out", *few), ".JPEG"),
        ((resized, tmp_path / "out", *few), "has 96 x 96 pixels; Tiny ImageNet's images have 64 x 64"),
        ((large, tiny / "words.txt" / "out", *few), "cannot be written"),
    ):
        told = run(*arguments)
        assert told.returncode == 2
        assert told.stderr.startswith("several_classes: ")
        assert sentence in told.stderr
        assert told.stderr.count("\n") == 1
        assert not (tmp_path / "out").exists()
