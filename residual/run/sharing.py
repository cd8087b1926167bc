"""Sharing what a run has learned: its weights, their config and a model card, in a folder or on the Hub.

The card (analysis/pages/card.md.jinja) says what the run's files say, and nothing that they do not.
"""

import math
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from ..analysis.page import templates
from ..detection.weights import is_detector, read_detector
from ..errors import InputError, needs, printable
from ..files import first_line, quoted, read_json, strict_json, without_home, written_whole
from ..localization.weights import is_localizer, read_localizer
from ..models.hub import endpoint_of_hub, repository
from ..models.layout import CODE_FILE, CONFIG_FILE, MODEL_FILE, PREPROCESSING_FILE
from ..models.names import is_name
from ..models.own import is_own
from ..models.weights import load_weights, weights_in
from ..recipes import KINDS, DetectionRecipe, LocalizationRecipe, Recipe, TrainingRecipe, differences
from ..recipes.schema import Model, parse
from ..training.folder import departed, run_of
from .page import kind_of, network_of

CARD = "README.md"


def write_shared(run: Path, name: str, folder: Path, licence: str | None = None) -> None:
    """Write what ``push`` would upload into a new folder: the weights folder, and a card beside it.

    Args:
        run: the folder of a run that has weights, or its weights folder.
        name: OWNER/NAME on the Hub.
        licence: that the weights are given away under, as the Hub calls it ("mit"); None to say nothing.

    Raises:
        InputError: when there are no trained weights, the name is none, or ``folder`` exists or cannot be
            written.
    """
    repository(f"hf:{name}")
    card = model_card(run, name, licence)
    weights = weights_in(run)
    with written_whole(folder) as temporary:
        temporary.mkdir()
        for file in (MODEL_FILE, PREPROCESSING_FILE, CODE_FILE):
            if (weights / file).exists():
                shutil.copyfile(weights / file, temporary / file)
        config = strict_json(_without_places(read_json(weights / CONFIG_FILE, dict[str, Any])), indent=2)
        for file, text in ((CONFIG_FILE, config), (CARD, card)):
            (temporary / file).write_text(printable(without_home(text)), encoding="utf-8")


def push(
    run: Path, name: str, *, licence: str | None = None, private: bool = False, update: bool = False
) -> str:
    """Upload a run's weights and its card to the Hugging Face Hub, and return the page's address.

    Args:
        run, name, licence: as of ``write_shared``.
        private: whether only the owner sees them.
        update: add them to a repository that is there, which keeps what was there before in its history.

    Raises:
        InputError: when there are no trained weights, the Hub cannot be reached or refuses them, or the
            repository exists, or is one that everybody sees where it is to be private.
    """
    try:
        import huggingface_hub
    except ImportError:
        raise needs("push", "huggingface_hub", "hub") from None
    endpoint = endpoint_of_hub()
    with TemporaryDirectory(prefix="residual-") as temporary:
        folder = Path(temporary) / "shared"
        write_shared(run, name, folder, licence)
        with _troubles(name, endpoint):
            api = huggingface_hub.HfApi(endpoint=endpoint)
            api.create_repo(name, private=private, exist_ok=update)
            # One that exists stays as visible as it is.
            if private and update and not api.model_info(name).private:
                raise InputError(
                    "it exists and everybody can see it; leave --private out, or make it private there"
                )
            api.upload_folder(repo_id=name, folder_path=folder, commit_message="Weights and model card")
    return f"{endpoint}/{name}"


def model_card(run: Path, name: str, licence: str | None = None) -> str:
    """Return the Markdown of a model card, from a run's files alone.

    Raises:
        InputError: when there are no weights that a run has trained.
    """
    if is_name(run):
        raise InputError(f"{run} is published already; push shares what a run of yours has trained")
    config, kind = _config(run)
    whole, config = config, _without_places(config)
    if not config.get("recipe") or not config.get("results"):
        raise InputError(f"{run} does not say how it was trained; push shares what a run has trained")
    recipe = parse(config["recipe"], str(run), kind)
    known = KINDS[kind][0].get(recipe.name)
    places = _places(whole)
    results = config["results"]
    sessions = _sessions(run)
    network = config["model"]["name"] if kind is Recipe else network_of(recipe).name
    card = templates(markdown=True).get_template("card.md.jinja")
    text = card.render(
        name=name,
        licence=licence,
        kind=kind_of(recipe),
        network=network,
        code=CODE_FILE if is_own(network) else None,
        recipe=recipe,
        described=yaml.safe_dump(
            {key: value for key, value in config["recipe"].items() if key != "description"},
            sort_keys=False,
            allow_unicode=True,
            width=math.inf,
        ).strip(),
        changes=_changes(known, recipe) if known else None,
        departures=departed(sessions),
        results=results,
        splits={
            split: results[split]
            for split in ("train", "validation", "test")
            # That of weights which were chosen on the way is of what was seen before, by others.
            if split != "train" or "chosen_by" not in results
            # A training line of a detector has losses alone.
            if isinstance(results.get(split), dict)
            and results[split].keys() >= ({"images", "ap50"} if kind is DetectionRecipe else {"images"})
        },
        data=(sessions[0].get("data") if sessions else None) or {},
        classes=config["classes"],
        preprocessing=config.get("preprocessing"),
        sessions=sessions,
        commands=list(dict.fromkeys(_of_command(s["command"], places) for s in sessions if s.get("command"))),
        started_from=next(
            (_told(s["started_from"], places) for s in sessions if s.get("started_from")), None
        ),
    )
    return re.sub(r"\n{3,}", "\n\n", text)


def _config(run: Path) -> tuple[dict[str, Any], type[TrainingRecipe]]:
    """Return the config of what a run has trained, read whole so that nothing damaged is shared; its kind."""
    if is_detector(run):
        return read_detector(run).config.model_dump(), DetectionRecipe
    if is_localizer(run):
        return read_localizer(run).config.model_dump(), LocalizationRecipe
    return load_weights(run).config, Recipe


def _places(value: Any, key: str = "") -> list[str]:
    """Return the texts of a config that are paths, the longest first."""
    if key == "classes":
        # Names of classes are none of paths, whatever they begin with.
        return []
    found = [value] if isinstance(value, str) and _called(value) != value else []
    if isinstance(value, dict):
        found += [place for name, item in value.items() for place in _places(item, name)]
    if isinstance(value, list | tuple):
        found += [place for item in value for place in _places(item)]
    return sorted(set(found), key=len, reverse=True)


def _without_places(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config in which no path tells where something lay on the machine that trained."""
    places = _places(config)

    def told(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: told(item, name) for name, item in value.items()}
        if isinstance(value, list | tuple):
            return value if key == "classes" else [told(item) for item in value]
        return _told(value, places) if isinstance(value, str) else value

    without: dict[str, Any] = told(config)
    return without


def _called(text: str) -> str:
    """Return a path's last name, or that of the path behind an equals sign; other texts as they are.

    Below this user's home it is where it lies there: a run may have been copied, and another's home was
    another.
    """
    here = without_home(text)
    if here.startswith("~"):
        return here
    for kind in (PurePosixPath, PureWindowsPath):
        if kind(text).is_absolute():
            return kind(text).name or text
    before = re.match(r"[^/\\=\s]*=", text)
    return before[0] + _called(text[before.end() :]) if before else text


#: A path in quotes, in which there may be anything, and one that ends with a blank or a bracket. What stands
#: behind a letter or a colon is a part of a name or of an address, but for file:.
IN_QUOTES = re.compile(r"""(['"])((?:[A-Za-z]:[\\/]|/).*?)\1""")
BARE = re.compile(r"""(?:(?<=file:)(?://)?|(?<![\w./~:\\-]))(?:[A-Za-z]:[\\/]|/(?!/))[^\s'"\[\](){},]+""")


def _told(text: str, places: Sequence[str] = ()) -> str:
    """Return a text with its paths as of ``_called``.

    Args:
        places: paths that it may name, in which there may be anything, the longest first.
    """
    if (called := _called(text)) != text:
        return called
    for place in places:
        # Not what is the end of another path; what follows it may be a part of its name, and is not told.
        parts = re.split(rf"(?<![\w.~/\\-]){re.escape(place)}", text)
        text = _called(place).join(parts)
    text = IN_QUOTES.sub(lambda found: f"{found[1]}{_called(found[2])}{found[1]}", without_home(text))
    return BARE.sub(lambda found: _called(found[0]), text)


def _of_command(text: str, places: Sequence[str]) -> str:
    """Return a command with its paths as of ``_told``."""
    try:
        words = shlex.split(text)
    except ValueError:
        return _told(text, places)
    return " ".join(quoted(_told(word, places)) for word in words)


def _changes(known: TrainingRecipe, recipe: TrainingRecipe) -> list[str]:
    """Return how a recipe differs from the one of its name, but for a network that comes from weights."""
    changes = differences(known, recipe)
    if network_of(known).name != "weights":
        return changes
    key = "detector.backbone" if isinstance(known, DetectionRecipe) else "model"
    of_weights = {f"{key}.{name}" for name in Model.model_fields}
    return [change for change in changes if change.partition(":")[0] not in of_weights]


def _sessions(run: Path) -> list[dict[str, Any]]:
    """Return a run's sessions, none where only its weights folder is there."""
    folder = run_of(run)
    return folder.sessions() if folder else []


@contextmanager
def _troubles(name: str, endpoint: str) -> Iterator[None]:
    """Turn what the Hub and the way to it may answer into a sentence."""
    from huggingface_hub import errors

    def refused(reason: str) -> InputError:
        return InputError(
            f"cannot push to {name} at {endpoint}: {reason}; --dry-run FOLDER writes what would be uploaded"
        )

    try:
        yield
    except errors.LocalTokenNotFoundError:
        raise refused("nobody is logged in (hf auth login)") from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else None
        if status in (401, 403):
            raise refused("it wants somebody who may write there (hf auth login)") from None
        if status == 409:
            raise refused("it exists already; --update adds to it") from None
        raise refused(first_line(error)) from None
    # Connections raise what the HTTP library of its version does.
    except Exception as error:
        raise refused(first_line(error)) from None
