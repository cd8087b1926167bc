"""Tiny ImageNet (Stanford CS231n): 100,000 training and 10,000 validation images of 64x64 in 200 classes.

It is a folder of images like any other (folder.py). Where a folder of its own name is asked for and is not
there, it is downloaded.
"""

from pathlib import Path

from ..download import PublishedFile, fetch_folder

ARCHIVE = PublishedFile(
    "Tiny ImageNet",
    "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
    "md5",
    "90528d7ca1a48142e341f4ef8d21d0de",
)
#: The folder in the archive.
FOLDER = "tiny-imagenet-200"


def fetch_if_named(data_dir: Path) -> None:
    """Download Tiny ImageNet where its folder is asked for, beside which others lie, and is not there.

    Raises:
        InputError: when it cannot be downloaded or unpacked.
    """
    if data_dir.name == FOLDER and not data_dir.exists() and data_dir.absolute().parent.is_dir():
        fetch_folder(ARCHIVE, data_dir)
