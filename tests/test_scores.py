"""Saved scores, ensembles, and classes matched by name."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from residual import InputError
from residual.data.synsets import imagenet_classes
from residual.evaluation.classes import how_matched, match_classes
from residual.evaluation.ensemble import average
from residual.evaluation.scores import Scores, Tally, load_scores, save_scores


def scores(seed: int = 0, count: int = 40, classes: int = 8) -> Scores:
    generator = torch.Generator().manual_seed(seed)
    return Scores(
        ids=tuple(f"val/{n}.jpg" for n in range(count)),
        classes=tuple(f"class {k}" for k in range(classes)),
        probabilities=torch.randn(count, classes, generator=generator).softmax(dim=1),
        targets=torch.arange(count) % classes,
        about={"weights": f"w{seed}"},
    )


def shuffled(given: Scores, seed: int = 9) -> Scores:
    """The same scores with pictures and classes in another order."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(given.ids), generator=generator)
    columns = torch.randperm(len(given.classes), generator=generator)
    return replace(
        given,
        ids=tuple(given.ids[n] for n in rows.tolist()),
        classes=tuple(given.classes[k] for k in columns.tolist()),
        probabilities=given.probabilities[rows][:, columns],
        targets=columns.argsort()[given.targets[rows]],
    )


def test_errors_from_probabilities() -> None:
    given = scores()
    found = given.metrics()
    places = given.probabilities.argsort(dim=1, descending=True)
    ranks = (places == given.targets[:, None]).nonzero()[:, 1]
    assert found.images == 40
    assert found.top1_error == pytest.approx(100 * (ranks > 0).float().mean().item())
    assert found.top5_error == pytest.approx(100 * (ranks > 4).float().mean().item())
    assert found.loss == pytest.approx(F.nll_loss(given.probabilities.log(), given.targets).item(), rel=1e-5)
    assert shuffled(given).metrics().top1_error == found.top1_error


def test_batches_add_up() -> None:
    given, tally = scores(), Tally()
    for part in (slice(0, 7), slice(7, 8), slice(8, 40)):
        tally.add(given.probabilities[part], given.targets[part])
    assert tally.metrics().top1_error == given.metrics().top1_error
    assert tally.metrics().loss == pytest.approx(given.metrics().loss)


def test_scores_that_are_no_numbers_are_wrong_answers() -> None:
    tally = Tally()
    tally.add(torch.full((2, 8), torch.nan), torch.tensor([0, 1]))
    assert tally.metrics().top1_error == 100
    assert tally.metrics().top5_error == 100


def test_a_right_class_of_probability_0_has_a_finite_loss() -> None:
    tally = Tally()
    tally.add(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))
    assert 80 < tally.metrics().loss < 100


def test_no_picture_at_all() -> None:
    with pytest.raises(InputError, match="no picture"):
        Tally().metrics()


# Files


def test_a_round_trip(tmp_path: Path) -> None:
    given = scores()
    save_scores(given, tmp_path / "new" / "a.safetensors")
    back = load_scores(tmp_path / "new" / "a.safetensors")
    assert (back.ids, back.classes, back.about) == (given.ids, given.classes, given.about)
    assert torch.equal(back.probabilities, given.probabilities)
    assert torch.equal(back.targets, given.targets)
    with pytest.raises(InputError, match="exists already"):
        save_scores(given, tmp_path / "new" / "a.safetensors")
    with pytest.raises(InputError, match=r"ends in .safetensors"):
        save_scores(given, tmp_path / "a.npz")
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == ["a.safetensors"]


def test_wrong_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no file"):
        load_scores(tmp_path / "nowhere.safetensors")
    (tmp_path / "text").write_text("no scores")
    with pytest.raises(InputError, match="damaged or no file of scores"):
        load_scores(tmp_path / "text")
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "weights")
    with pytest.raises(InputError, match="holds no scores; save them with"):
        load_scores(tmp_path / "weights")
    save_scores(scores(), tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    (tmp_path / "half").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        load_scores(tmp_path / "half")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"ids": ("a",)}, "40, 8.* scores for 1 ids"),
        ({"ids": ("a",) * 40}, "the id 'a' is there twice"),
        ({"classes": ("a",) * 8}, "the class 'a' is there twice"),
        ({"targets": torch.full((40,), 8)}, "no class"),
        ({"targets": torch.zeros(39, dtype=torch.int64)}, "scores for 40 ids"),
    ],
)
def test_files_that_contradict_themselves(tmp_path: Path, change: dict[str, object], words: str) -> None:
    save_scores(replace(scores(), **change), tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=words):
        load_scores(tmp_path / "a.safetensors")


def test_a_file_of_a_newer_version(tmp_path: Path) -> None:
    names = json.dumps(["a"])
    metadata = {"format": "residual scores", "version": "2", "ids": names, "classes": names, "about": "{}"}
    save_file({"probabilities": torch.ones(1, 1)}, tmp_path / "a.safetensors", metadata)
    with pytest.raises(InputError, match="newer residual"):
        load_scores(tmp_path / "a.safetensors")


# Ensembles


def test_an_ensemble_is_the_mean_of_softmax_scores_matched_by_picture_and_class() -> None:
    members = [scores(0), scores(1), scores(2)]
    expected = sum(m.probabilities.double() for m in members) / 3
    mixed = [("a", members[0]), ("b", shuffled(members[1])), ("c", shuffled(members[2], 5))]
    for order in itertools.permutations(mixed):
        found = average(order)
        place = [found.ids.index(name) for name in members[0].ids]
        columns = [found.classes.index(name) for name in members[0].classes]
        torch.testing.assert_close(found.probabilities[place][:, columns], expected.float())
        assert found.metrics().loss == pytest.approx(
            F.nll_loss(expected.log(), members[0].targets).item(), rel=1e-5
        )
        assert found.about == {"ensemble": [name for name, _ in order]}


def test_an_ensemble_of_one_is_itself() -> None:
    assert torch.equal(average([("a", scores())]).probabilities, scores().probabilities)


def test_members_that_do_not_fit() -> None:
    given = scores()
    fewer = replace(
        given, ids=given.ids[:-2], probabilities=given.probabilities[:-2], targets=given.targets[:-2]
    )
    with pytest.raises(InputError, match=r"b lacks the picture 'val/38.jpg' and 1 more, which a has"):
        average([("a", given), ("b", fewer)])
    with pytest.raises(InputError, match=r"a lacks the picture 'val/38.jpg'"):
        average([("a", fewer), ("b", given)])
    renamed = replace(given, classes=("zebra", *given.classes[1:]))
    with pytest.raises(InputError, match="b lacks the class 'class 0', which a has"):
        average([("a", given), ("b", renamed)])
    other = replace(given, targets=(given.targets + 1) % 8)
    with pytest.raises(
        InputError, match=r"'val/0.jpg' is of class 'class 0' in a and of class 'class 1' in b"
    ):
        average([("a", given), ("b", other)])
    with pytest.raises(InputError, match="an ensemble has members"):
        average([])


# Classes


def test_classes_are_matched_by_name_never_by_position() -> None:
    network = ("ant", "bee", "cat", "dog")
    assert match_classes(("dog", "ant"), network, "here").tolist() == [3, 0]
    assert match_classes(network[::-1], network, "here").tolist() == [3, 2, 1, 0]
    assert match_classes(("Dog", "guinea_pig"), ("guinea pig", "dog"), "here").tolist() == [1, 0]


def test_imagenet_classes_by_wordnet_id_or_name() -> None:
    assert len(imagenet_classes()) == 1000
    assert [wnid for wnid, _ in imagenet_classes()] == sorted(wnid for wnid, _ in imagenet_classes())
    ids = tuple(wnid for wnid, _ in imagenet_classes())
    named = tuple(f"{wnid} {name}" for wnid, name in imagenet_classes())
    names = tuple(name for _, name in imagenet_classes())
    some = ("n03445777", "n01440764", "n02102040")  # golf ball, tench, English springer
    for network in (ids, named, names):
        assert match_classes(some, network, "here").tolist() == [574, 0, 217]
        assert match_classes(("golf ball", "tench"), network, "here").tolist() == [574, 0]


def test_classes_that_the_network_has_not() -> None:
    with pytest.raises(
        InputError, match="here: the class 'zebra' is none of the network's 2 classes; known are"
    ):
        match_classes(("ant", "zebra"), ("ant", "bee"), "here")
    with pytest.raises(InputError, match="did you mean class 17"):
        match_classes(("clas 17",), [f"class {k}" for k in range(100)], "here")
    with pytest.raises(InputError, match=r"have no names but 0 to 999.*--classes FILE"):
        match_classes(("n01440764",), [str(k) for k in range(1000)], "here")
    with pytest.raises(InputError, match="'ant' and 'Ant' both mean the network's class 'ant'"):
        match_classes(("ant", "Ant"), ("ant", "bee"), "here")
    with pytest.raises(InputError, match="'CRANE' means 2 of the network's classes"):
        match_classes(("CRANE",), ("crane", "Crane"), "here")


def test_how_classes_were_matched_is_said() -> None:
    network = ("ant", "bee", "cat")

    def said(*pictures: str) -> str | None:
        return how_matched(pictures, network, match_classes(pictures, network, "here"))

    assert said("ant", "bee", "cat") is None
    assert "another order" in (said("cat", "ant", "bee") or "")
    assert "2 of the network's 3 classes" in (said("cat", "ant") or "")
    assert "other names" in (said("Ant", "Bee", "Cat") or "")
