"""Killed at any change of a file and at any moment, and with a full disk: a resumed run is the run.

The moments are found by counting: whatever files a run comes to write, it is killed before each of them.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

from attacks import Figures
from conftest import assert_same_run, results_of, set_options
from ground import CACHE, IN_MEMORY, LOCATED, REFINED, WITH_BOXES
from zygote import MOST, Case, Outcome, Zygote

#: What a command ends with where the disk is full: a sentence, or well, as a cache can be done without.
ENDED = (0, 2)

KINDS = {
    # With images held out, so that there are best weights to be killed at.
    "classification": ["train", *IN_MEMORY, *set_options(["data.validation=100"])],
    "detection": ["detect", "train", "voc-finetune", "--data-dir", "voc", *set_options(WITH_BOXES)],
    "localization": LOCATED,
    "R-CNN": REFINED,
}
#: What of the ground runs are made of.
GROUND = ("voc", "located", "classifier", "runs")


class Killed:
    """Runs of one kind in a folder, each killed once and taken up again, beside one that is left alone."""

    def __init__(self, kind: str, zygote: Zygote, ground: Path, place: Path, figures: Figures) -> None:
        self.kind, self.zygote, self.place, self.figures = kind, zygote, place, figures
        place.mkdir(exist_ok=True)
        for name in GROUND:
            (place / name).symlink_to(ground / name)
        (place / "home").mkdir()
        self.alone = place / "alone"
        done = self.start(self.alone)
        assert done.code == 0, done.output
        self.changes, self.seconds = done.changes, done.seconds

    def case(self, words: list[str], out: Path) -> Case:
        words = [*words, "--out", out.name]
        return Case(words, str(self.place), CACHE, watched=str(out), patience=300)

    def start(self, out: Path, **dies: float) -> Outcome:
        return self.zygote.attempt(replace(self.case(KINDS[self.kind], out), **dies))

    def go_on(self, out: Path) -> Outcome:
        """Do what its user does: resume where there is a run, else begin it."""
        words = KINDS[self.kind]
        if (out / "recipe.yaml").exists():
            command = words[: words.index("train") + 1]
            # It has not been noted where the data lie until the first session is.
            data = words.index("--data-dir") if "--data-dir" in words else len(words)
            words = [*command, "--resume", *words[data : data + 2]]
        return self.zygote.attempt(self.case(words, out))

    def attack(self, how: str, **dies: float) -> None:
        """Try one death, and compare what becomes of the run with the one that was left alone."""
        out = self.place / "killed"
        shutil.rmtree(out, ignore_errors=True)
        self.figures.tried(f"{self.kind}, {how}")
        what = f"{self.kind} of {how}: {dies}: "
        first = self.start(out, **dies)
        if how == "full disk":
            if first.code not in ENDED or "Traceback" in first.output:
                self.figures.fault("wrong exit code", f"{what}{first.code}: {first.output[-300:]}")
        # Before a change of a file that the run is known to make it is killed for certain.
        elif first.code not in ((137,) if "kill_at" in dies else (0, 137)):
            self.figures.fault("wrong exit code", f"{what}{first.code}: {first.output[-300:]}")
        again = self.go_on(out)
        for done in (first, again):
            if done.memory > MOST:
                self.figures.fault("above 2 GB", what)
            if done.hung:
                self.figures.fault("hang", what)
        if again.code:
            self.figures.fault("wrong result after resume", f"{what}{again.code}: {again.output[-400:]}")
            return
        try:
            assert_same_run(out, self.alone)
            assert untimed(out) == untimed(self.alone)
            left = [path.name for path in out.rglob(".*") if path.name != ".lock"]
            assert left == [], "left behind by the killed process"
        except (AssertionError, OSError, ValueError) as error:
            self.figures.fault("wrong result after resume", f"{what}{error}")
        else:
            self.figures.note("the same run" if first.code else "it had ended before")


def untimed(out: Path) -> str:
    """Return a run's final numbers, without what the clock says."""
    found = results_of(out) | {"seconds": 0}
    for part in found.values():
        if isinstance(part, dict):
            part.pop("images_per_second", None)
    return json.dumps(found)
