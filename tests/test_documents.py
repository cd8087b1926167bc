"""Every command and every line of Python in README.md and docs/ is run, small, and has to end well."""

import inspect
import json
import pydoc
import re
from pathlib import Path

import pytest
from conftest import ROOT, Call
from documents import (
    PAGES,
    Stage,
    Told,
    command_named,
    commands_of,
    distinct,
    fences,
    mentioned,
    options_of,
    prose_of,
    python_of,
    told_by_help,
    told_by_pages,
    try_out,
)

from residual import InputError
from residual.errors import EXTRAS
from residual.recipes import DETECTION, LOCALIZATION, RECIPES, override

#: What is told and not run here, and why.
NOT_RUN = {
    "make install && source .venv/bin/activate": "installs PyTorch",
    "git clone https://github.com/residual-learning/residual && cd residual": "downloads",
    "source .venv/bin/activate": "changes the shell that it is typed into",
    "make demo": "is residual reproduce degradation, which is run",
    "make docs": "makes the website; what it checks is checked here too",
    "make test-long": "runs this",
    "make test-slow": "takes an hour",
    "pip install '.[onnx]'": "installs",
    **{f"pip install {packages}": "installs" for packages in EXTRAS.values()},
    "rsync -a --ignore-existing other:residual/runs/cifar10/ runs/cifar10/": "copies from another machine",
    "python benchmarks/train_cpu.py --out results/benchmarks/train_cpu.json": "measures for minutes",
    "python benchmarks/train_cpu.py --network resnet18 --rounds 3 --profile": "measures for minutes",
    "python benchmarks/train_gpu.py --out results/benchmarks/train_gpu.json --profile profile.txt": "a GPU",
    "python benchmarks/train_gpu.py --sides ours-tf32,ours-combo": "a GPU",
    "python benchmarks/inference_cpu.py --rounds 2 --passes 32": "measures for minutes",
    "python benchmarks/input_pipeline.py FOLDER": "measures for minutes",
    "python benchmarks/input_pipeline.py FOLDER --workers 2": "measures for minutes",
    "python benchmarks/testing.py --device cpu --images 6 --rounds 2": "measures for minutes",
    "python benchmarks/detection.py --images 1 --passes 1 --rounds 2 --tasks inference": "measures for long",
}

TOLD = distinct(told_by_pages())
OURS = [told for told in TOLD if "residual " in told.text and told.text not in NOT_RUN]


def test_all_that_is_told_is_run_or_listed() -> None:
    others = [told.text for told in TOLD if told not in OURS]
    assert sorted(others) == sorted(NOT_RUN)
    assert len(OURS) > 60


@pytest.mark.parametrize("text", NOT_RUN)
def test_what_is_not_run_is_there(text: str) -> None:
    program, word = text.split()[:2]
    if program == "make":
        assert re.search(rf"^{word}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "python":
        assert (ROOT / word).is_file()
    elif program == "pip":
        extra = re.search(r"\.\[(\w+)\]", text)
        assert extra[1] in EXTRAS if extra else text.removeprefix("pip install ") in EXTRAS.values()


@pytest.mark.long
@pytest.mark.parametrize("told", [told for told in OURS if told.whole], ids=lambda told: told.text)
def test_a_command_of_the_pages_ends_well(
    told: Told, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    try_out(told, stage, tmp_path, monkeypatch, call)


@pytest.mark.parametrize("told", [told for told in OURS if not told.whole], ids=lambda told: told.text)
def test_a_command_that_a_sentence_mentions_is_there(told: Told) -> None:
    command, options = mentioned(told.text)
    assert set(options) <= options_of(command)


@pytest.mark.long
@pytest.mark.parametrize("page", [page for page in PAGES if python_of(page)], ids=lambda page: page.name)
def test_python_of_a_page_runs_in_its_order(
    page: Path, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    stage.patch(monkeypatch)
    monkeypatch.chdir(stage.copy(tmp_path / "place", detection=False))
    # What a page opens, the command above has written.
    for _, fence in fences(page.read_text(encoding="utf-8")):
        for text in commands_of(fence):
            if "flowers.onnx" in text and text.startswith("residual export "):
                assert call(*text.split()[1:]) == 0
    exec(compile(python_of(page), str(page), "exec"), {"__name__": page.stem})


def test_every_option_that_a_page_names_is_there() -> None:
    known = {"--nproc-per-node", "--max-restarts", "--shutdown-timeout"}  # torchrun's
    for told in told_by_help():
        if "residual " in told.where:
            command, _ = command_named(told.where.split()[1:])
            known |= options_of(command)
    for page in PAGES:
        for code in re.findall(r"`([^`]+)`", "\n".join(prose_of(page.read_text(encoding="utf-8")))):
            for option in re.findall(r"(?:^| )(--[a-z0-9][a-z0-9-]*)", code):
                if not code.startswith("python "):
                    assert option in known, f"{page.name}: {code}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_is_there(page: Path) -> None:
    """Files, links and what the API's page describes: as docs/hooks.py, by which make docs fails."""
    text = page.read_text(encoding="utf-8")
    for file in re.findall(r"`([\w/]+\.py)`", text):
        assert any((root / file).is_file() for root in (ROOT, ROOT / "residual")), file
    for link in re.findall(r"\]\((?!https?:)([^)#\s]+)", text):
        assert (page.parent / link).exists(), link
    for link in re.findall(r"residual-learning/residual/(?:(?:blob|tree)/)?main/([^)#\s]+)", text):
        assert (ROOT / link).exists(), link
    for name in re.findall(r"^::: (\S+)", text, re.MULTILINE):
        assert inspect.getdoc(pydoc.locate(name)), name


def settings() -> list[str]:
    """Return what the pages and the examples of --help say after --set, and what else reads like it."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES] + [told.text for told in told_by_help()]
    found = set()
    for text in texts:
        for setting in re.findall(r"(?:--set |`)('[^']+'|[a-z_.]+=[^\s`]+)", text):
            if re.match(r"'?[a-z_]+(\.[a-z_]+)*=", setting):
                found.add(setting.strip("'"))
    return sorted(found)


@pytest.mark.parametrize("setting", settings())
def test_every_setting_that_is_told_is_one_of_a_recipe(setting: str) -> None:
    for recipe in (*RECIPES.values(), *DETECTION.values(), *LOCALIZATION.values()):
        try:
            override(recipe, [setting])
        except InputError:
            continue
        return
    pytest.fail(f"no recipe takes {setting}")


def test_the_readme_is_a_page_or_two() -> None:
    """As CONTRIBUTING has it."""
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_readmes_speeds_are_those_of_the_committed_benchmarks() -> None:
    def summary(benchmark: str) -> dict:
        return json.loads((ROOT / "results" / "benchmarks" / f"{benchmark}.json").read_text())["summary"]

    training, inference = summary("train_cpu"), summary("inference_cpu")
    ratios = [training["ratio"][side]["usual"]["median"] for side in ("ours", "bfloat16")]
    ratios += [
        inference[f"batch {size}"][side]["ratio"]["median"]
        for size in (1, 16)
        for side in ("ours", "bfloat16")
    ]
    rates = [training["sides"][side]["images_per_second"]["median"] for side in ("ours", "bfloat16", "usual")]
    said = (ROOT / "README.md").read_text().split("**Speed**")[1].split("## ")[0]
    figures = set(re.findall(r"[\d.]*\d", said))
    assert {f"{ratio:.2f}" for ratio in ratios} | {f"{rate:.0f}" for rate in rates} <= figures
