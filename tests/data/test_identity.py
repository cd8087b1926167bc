"""What tells images from others."""

import os
from pathlib import Path

import torch

from residual.data import identity
from residual.data.identity import identity_of


def test_any_name_number_or_byte_changes_it(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.bmp" for number in range(5)]
    for file in files:
        file.write_bytes(b"BM" + bytes(50))

    def now(names: tuple[str, ...] = ("ant", "bee"), label: int = 1) -> str:
        return identity_of(names, [torch.tensor([0, label])], files)

    begun = now()
    assert now() == begun
    assert now(("ant", "be", "e")) != begun
    assert now(("ant", os.fsdecode(b"b\xe9"))) != begun
    assert now(("ant", "b\ud83d")) != begun  # half a letter, as JSON can have it
    assert now(label=2) != begun
    files[3].write_bytes(b"BM" + bytes(49) + b"!")
    assert now() != begun, "of the same size"
    files[3].write_bytes(b"BM" + bytes(50))
    assert now() == begun
    files[3].unlink()
    assert now() != begun
    os.mkfifo(files[3])  # which is not waited for
    assert now() != begun


def test_of_many_files_all_sizes_and_some_beginnings_count(tmp_path: Path) -> None:
    files = [tmp_path / str(number) for number in range(2 * identity.SAMPLE + 1)]
    for file in files:
        file.write_bytes(b"whole")
    begun = identity_of([], [], files)
    files[1].write_bytes(b"other")
    assert identity_of([], [], files) == begun, "every third file is looked at: that is what is promised"
    files[1].write_bytes(b"longer")
    assert identity_of([], [], files) != begun
    files[1].write_bytes(b"whole")
    files[3].write_bytes(b"other")
    assert identity_of([], [], files) != begun


def test_numbers_of_another_type_or_shape_are_others() -> None:
    numbers = torch.arange(6, dtype=torch.uint8)
    found = {
        identity_of([], [tensor])
        for tensor in (numbers, numbers.view(2, 3), numbers.bool(), numbers.view(torch.int8), numbers[:0])
    }
    assert len(found) == 5
    assert identity_of([], [numbers.view(2, 3).T]) == identity_of([], [numbers.view(2, 3).T.contiguous()])
