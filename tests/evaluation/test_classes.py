"""Classes matched by name."""

import pytest

from residual import InputError
from residual.class_names import imagenet_classes
from residual.evaluation.classes import how_matched, match_classes


def test_classes_are_matched_by_name_never_by_position() -> None:
    network = ("ant", "bee", "cat", "dog")
    assert match_classes(("dog", "ant"), network, "here").tolist() == [3, 0]
    assert match_classes(network[::-1], network, "here").tolist() == [3, 2, 1, 0]
    assert match_classes(("Dog", "guinea_pig"), ("guinea pig", "dog"), "here").tolist() == [1, 0]
    # macOS writes an accent as a letter of its own.
    assert match_classes(("a\u0308rger", "b"), ("b", "\u00e4rger"), "here").tolist() == [1, 0]


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


def test_all_imagenet_classes_by_their_names_as_published() -> None:
    """Two differ in their case alone: a Cardigan is a dog, and a cardigan is worn."""
    ids, names = zip(*imagenet_classes(), strict=True)
    order = list(range(1000))
    assert match_classes(ids, names, "here").tolist() == order
    assert match_classes(names, ids, "here").tolist() == order
    assert match_classes([name.replace(" ", "_") for name in names], ids, "here").tolist() == order
    assert match_classes(["TENCH"], ids, "here").tolist() == [0]
    with pytest.raises(InputError, match="'CARDIGAN' is not one of the network's 1,000 classes"):
        match_classes(["CARDIGAN"], ids, "here")
    with pytest.raises(InputError, match="'CARDIGAN' means 2 of the network's classes; use its name"):
        match_classes(["CARDIGAN"], names, "here")


def test_a_case_of_its_own_is_no_class_of_its_own_elsewhere() -> None:
    assert match_classes(["cardigan", "dog"], ["Cardigan", "dog"], "here").tolist() == [0, 1]
    assert match_classes(["Cardigan"], ["cardigan", "dog"], "here").tolist() == [0]
    assert match_classes(["cardigan", "Cardigan"], ["Cardigan", "cardigan"], "here").tolist() == [1, 0]


def test_wordnet_ids_before_anything_that_is_no_letter_or_digit() -> None:
    network = ("n01440764 tench", "n02102040 English springer", "n01440764x")
    images = ("n02102040_English_springer", "n01440764-tench")
    assert match_classes(images, network, "here").tolist() == [1, 0]
    with pytest.raises(InputError, match="'n014407640' is not one of"):
        match_classes(("n014407640",), network, "here")


def test_classes_that_the_network_has_not() -> None:
    with pytest.raises(
        InputError, match="here: the class 'zebra' is not one of the network's 2 classes; known are"
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

    def said(*images: str) -> str | None:
        return how_matched(images, network, match_classes(images, network, "here"))

    assert said("ant", "bee", "cat") is None
    assert "another order" in (said("cat", "ant", "bee") or "")
    assert "2 of the network's 3 classes" in (said("cat", "ant") or "")
    assert "other names" in (said("Ant", "Bee", "Cat") or "")
