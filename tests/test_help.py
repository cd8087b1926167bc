"""Every example in the help of every command is run, small, and has to end well."""

from pathlib import Path

import pytest
from conftest import Call
from documents import Stage, Told, distinct, told_by_help, told_by_pages, try_out

#: What the pages tell as well is run by test_documents.py.
ELSEWHERE = {told.key for told in told_by_pages() if told.whole}
TOLD = [told for told in distinct(told_by_help()) if told.key not in ELSEWHERE]


@pytest.mark.long
@pytest.mark.parametrize("told", TOLD, ids=lambda told: told.text)
def test_an_example_ends_well(
    told: Told, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    try_out(told, stage, tmp_path, monkeypatch, call)
