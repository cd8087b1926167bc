"""The notebook docs/tutorial.ipynb, from its first cell to its last."""

import re
from pathlib import Path

import pytest
from conftest import ROOT, environment, results_of


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    book = nbformat.read(ROOT / "docs" / "tutorial.ipynb", as_version=4)
    # As it is committed it holds no outputs; here it is shorter than it says.
    assert all(not cell.get("outputs") for cell in book.cells)
    setup = next(cell for cell in book.cells if "iterations = 600" in cell.source)
    setup.source = setup.source.replace("iterations = 600", "iterations = 60")
    nbclient.NotebookClient(book, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs" / "degradation" / "errors.png").is_file()
    assert results_of(tmp_path / "runs" / "with_shortcut")["iterations"] == 30
    assert results_of(tmp_path / "runs" / "mine")["validation"]["images"] == 60
    printed = "".join(output.get("text", "") for cell in book.cells for output in cell.get("outputs", []))
    assert len(re.findall(r"^digit \d: +\d+\.\d %$", printed, re.MULTILINE)) == 3
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()
