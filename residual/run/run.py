"""Where a run is begun: one skeleton for all tasks, from a recipe to a complete run folder.

Join the other ranks, check the folder, read the data, build the network that the run starts from, open the
folder, train, save, finish. What differs between the tasks is in classification.py, detection.py,
localization.py and rcnn.py.
"""

import functools
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast

import torch

from .. import distributed, torchrun
from ..data import check_data_dir
from ..data.cifar10 import USUAL_DIR
from ..device import arithmetic, current, keep_freed_memory, memory_ran_out, pick_device, slow_bfloat16
from ..distributed import World
from ..environment import describe
from ..errors import InputError, Interrupted, OtherData, memory_that_ran_out, needs, on_a_line, plural
from ..files import cannot_write, first_line, replace_file
from ..models import own
from ..models.layout import MODEL_FILE
from ..recipes import DetectionRecipe, LocalizationRecipe, Recipe, TrainingRecipe
from ..recipes.schema import Schedule
from ..signals import saying
from ..terminal import note
from ..training.folder import RunFolder, refuse_lost_data, remembered_data_dir
from ..training.loop import Run
from .classification import ClassificationTask
from .page import write_page
from .task import Task

#: Fewer in a run of epochs, and it is said how to have more.
FEW_ITERATIONS = 50

R = TypeVar("R", bound=TrainingRecipe | None)


def train(
    recipe: TrainingRecipe | None,
    out: Path,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
    eager: bool = False,
    deterministic: bool = False,
) -> dict[str, Any]:
    """Train a recipe's network in the run folder ``out``, and return the final numbers (results.json).

    Args:
        recipe: what to train, of any kind; None, when resuming, for the folder's own.
        out: the run folder, which must be new or, with ``resume``, hold a run of the same recipe.
        data_dir: where the data lie, or CIFAR-10 is downloaded to; None, when resuming, for where they lay.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        resume: continue at the newest checkpoint; a complete run just gives its results again.
        tensorboard: also write TensorBoard's events to ``out/tensorboard``.
        eager: on a GPU, run the network kernel by kernel, without compiling and recording iterations.
        deterministic: on a GPU, take only kernels that give the same bits each time (a CPU's always do).

    Raises:
        InputError: for anything wrong with the recipe, the data or the folder.
        Interrupted: after SIGINT, SIGTERM or SIGHUP; a checkpoint has been written.
    """
    where = pick_device(device)
    world = distributed.join(where)
    folder = RunFolder(out)
    # What torchrun starts anew goes on with what its processes had begun before one of them died, not with
    # what they were refused for.
    told = world.gather((torchrun.restarts() > 0, distributed.launcher()))
    anew = world.is_main and any(restarted for restarted, _ in told)
    resume = resume or world.gather(anew and folder.begun_by({launcher for _, launcher in told}))[0]
    recipe = with_own_code(RunFolder.check(out, with_own_code(recipe, asked=True), resume))
    if isinstance(recipe, Recipe) and not resume:
        check_data_dir(recipe.data.dataset, data_dir)
    if folder.results_file.exists():
        if world.is_main:
            folder.sweep()  # it may have been killed just after
            note(f"{out} is complete, so nothing was trained; these are its results")
        return folder.results(recipe)
    # A new run's folder may lie in another run's, whose data are not meant.
    data_dir = data_dir_of(recipe, data_dir, out if resume else None)
    # Everything that can be wrong with the input is found before the folder is made.
    if not isinstance(recipe, Recipe) and where.type != "cpu" and (eager or deterministic):
        raise InputError(
            f"{recipe.name}: {'eager' if eager else 'deterministic'} is for classifiers; on a GPU others "
            "always run kernel by kernel, some of which repeat no bits; leave it out"
        )
    task = task_of(recipe, data_dir, world)
    data = check_same_data(folder, task, resume)
    task.start(folder if resume and folder.checkpoints() else None)
    schedule = in_iterations(recipe, task.images)
    if world.is_main and not resume and (few := _few_iterations(recipe, task.images, schedule.iterations)):
        note(few)
    log = _tensorboard_log(out / "tensorboard") if tensorboard and world.is_main else None
    options = {"--tensorboard": tensorboard, "--eager": eager, "--deterministic": deterministic}
    more = [] if device == "auto" else ["--device", device]
    more += [option for option, given in options.items() if given]
    again = resume_command(task, out, data_dir, more)
    with (
        # Around the other, which is to know in what mode a kernel was refused.
        arithmetic(where, recipe.precision, deterministic, task.one_size),
        working_in(folder, recipe, resume, where, world, again),
    ):
        work = task.place(where, schedule, eager)
        lasting = recipe.model_copy(update={"schedule": schedule})
        evaluate, best = task.evaluate, functools.partial(_keep_best, task, folder, recipe.name)
        run = Run(
            lasting, task.model, task.batches, work, evaluate, task.split, folder, world, again, log, best
        )
        if world.is_main:
            task.record(folder)
            _tell(task.notes, "fault{s} in the annotations", out / "left-out.txt")
        _continue(run, task, where, data, data_dir, resume)
        task.prepare(folder)
        run.train()
        task.batches.close()
        with stopped_with(run.tests_left):
            found = task.results(run)
            unreadable = {
                name: reason for part in world.gather(task.unreadable()) for name, reason in part.items()
            }
            results = {
                "recipe": recipe.name,
                "iterations": run.progress.iteration,
                "seconds": run.progress.seconds,
                **found,
                "unreadable_images": len(unreadable),
            }
            if world.is_main:
                folder.remove_unfinished_weights()
                task.save(folder.weights, results)
                task.keep(folder)
                # Before results.json, with which the run is complete: no later session would write it.
                what = "image{s} could not be read and {were} skipped"
                _tell(list(unreadable.values()), what, out / "unreadable.txt")
                folder.finish(results)
        if world.is_main:
            _try_page(folder, recipe, task, device)
        world.barrier()
        return results


def data_dir_of(recipe: TrainingRecipe, given: Path | None, begun: Path | None) -> Path | None:
    """Return where a run's data lie, None where they are in no folder or nobody has said.

    Args:
        begun: the folder of a run that was begun; None for a new one.

    Raises:
        InputError: where they are gone.
    """
    found = given or (remembered_data_dir(begun) if begun else None)
    if found is None and isinstance(recipe, Recipe) and recipe.data.dataset == "cifar10":
        # What is noted is where it lies, wherever the run is resumed from.
        return USUAL_DIR
    if found is None and begun:
        refuse_lost_data(begun)
    return found


def with_own_code(recipe: R, asked: bool = False) -> R:
    """Return a recipe whose network of the user's own, if it has one, is named for good: path and hash.

    Args:
        asked: whether the user names it now, and so asks for its code to run; a run folder does not.

    Raises:
        InputError: where the code is not what the run began with, or nobody has asked for it to run.
    """
    if not isinstance(recipe, Recipe) or not own.is_own(recipe.model.name):
        return recipe
    file, function = own.split_name(recipe.model.name)
    # Not the file that a link leads to, which may have another suffix: the Hub's cache has such links.
    name = f"{file.expanduser().parent.resolve() / file.name}:{function}"
    code = own.fingerprint(name)
    if recipe.model.code not in (None, code):
        raise InputError(f"{file} is not what the run began with (its SHA-256 is another); put that back")
    if asked and not own.is_trusted(name):
        note(f"the code in {file} is run: now, and from now on where one of its networks is loaded")
        own.trust(name)
    elif not own.is_trusted(name):
        raise InputError(f"the run's network is code in {file}; name the recipe as well if it may run")
    model = recipe.model.model_copy(update={"name": name, "code": code})
    return cast(R, recipe.model_copy(update={"model": model}))


def resume_command(task: Task, out: Path, data_dir: Path | None, more: Sequence[str] = ()) -> str:
    """Return what to type to continue a run.

    Args:
        more: options that the run folder does not know.
    """
    where = ["--data-dir", str(data_dir)] if data_dir else []
    threads = ["--threads", str(count)] if (count := distributed.asked_threads()) else []
    again = [*task.command, "--resume", "--out", str(out), *where, *threads, *more]
    if torchrun.started():
        # Where there are several machines, each is started with what names the first.
        here = torchrun.size() == torchrun.local_size()
        again = ["torchrun", f"--nproc-per-node={torchrun.size()}" if here else "...", "-m", *again]
    return shlex.join(again)


def _keep_best(task: Task, folder: RunFolder, name: str, line: dict[str, Any]) -> None:
    """Keep the weights of the lowest validation error so far, beside those that will be the result."""
    marked = {"recipe": name, "iterations": line["iteration"], "chosen_by": "validation", **line}
    folder.replace_best(lambda path: task.save(path, marked))


def report(path: Path, *, data_dir: Path | None = None, device: str = "auto") -> Path:
    """Write the page of a finished or running run, ``report.html`` in its folder, and return its path.

    What the network saw in the images is kept by a run at its end; a run without it is tested once more.

    Args:
        data_dir: where the data lie; None for where they lay in the run's last session. Without them the page
            has no images.
        device: to test on, as of ``train``.

    Raises:
        InputError: when there is no run, or a file of it is damaged.
    """
    folder = RunFolder(path)
    recipe = folder.recipe()
    try:
        task = task_of(recipe, data_dir_of(recipe, data_dir, path), World())
    except InputError as error:
        length = None if recipe.schedule.epochs else recipe.schedule.iterations
        return write_page(folder, recipe, length, None, _not_shown(error))
    return _page(folder, recipe, task, device)


def _page(folder: RunFolder, recipe: TrainingRecipe, task: Task, device: str) -> Path:
    length = in_iterations(recipe, task.images).iterations
    try:
        findings = task.findings(folder, device)
    except OtherData as error:
        return write_page(folder, recipe, length, None, _not_shown(error))
    return write_page(folder, recipe, length, findings, "" if findings else _nothing_to_show(folder))


def _nothing_to_show(folder: RunFolder) -> str:
    if not folder.results_file.exists():
        return "Single images and classes are looked at when there are final weights."
    if (folder.weights / MODEL_FILE).exists():
        return "Nothing was held out to test on, so single images and classes are not shown."
    return "The final weights are not in the run folder, so single images and classes are not shown."


def _not_shown(error: InputError) -> str:
    return f"Images and classes are not shown: {error}."


def _try_page(folder: RunFolder, recipe: TrainingRecipe, task: Task, device: str) -> None:
    """Write a run's page; the run is complete, whatever becomes of that."""
    again = f"make it with: residual report {shlex.quote(str(folder.path))}"
    try:
        with stopped_with(f"stopped; the run is complete, but its page was not written; {again}"):
            _page(folder, recipe, task, device)
    # Whatever a font, a decoder or an allocator raises: the page can be made again.
    except Exception as error:
        reason = error if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
        note(f"the run is complete, but its page was not written ({reason}); {again}")


def in_iterations(recipe: TrainingRecipe, images: int) -> Schedule:
    """Return a recipe's schedule, in iterations if it is in epochs of so many images.

    The run folder keeps the recipe as it was asked for.

    Raises:
        InputError: for a warm-up that is longer than the run.
    """
    schedule = recipe.schedule
    if not schedule.epochs:
        return schedule
    length = -(-schedule.epochs * images // recipe.batch.size)
    if schedule.too_long_a_warmup(length):
        assert schedule.warmup is not None
        raise InputError(
            f"schedule.warmup.iterations ({schedule.warmup.iterations}) is not shorter than the run's "
            f"{length} iterations"
        )
    return schedule.model_copy(update={"iterations": length, "epochs": None})


def _few_iterations(recipe: TrainingRecipe, images: int, length: int) -> str:
    """Return what is to be said of epochs of so few images that hardly anything is learned in them."""
    epochs, batch = recipe.schedule.epochs, recipe.batch.size
    if not epochs or length >= FEW_ITERATIONS:
        return ""
    many = f"{plural(epochs, 'epoch')} of {plural(images, 'image')} in batches of {batch}"
    smaller = f", or a --batch below {batch}" if batch > 2 else ""
    return (
        f"{many} make {plural(length, 'iteration')}, in which a network learns little; "
        f"for more of them take more --epochs{smaller}"
    )


def task_of(recipe: TrainingRecipe, data_dir: Path | None, world: World) -> Task:
    # What detects is imported where it is asked for: torchvision's operators take a second and a half.
    if isinstance(recipe, DetectionRecipe):
        from .detection import DetectionTask

        return DetectionTask(recipe, data_dir, world)
    if isinstance(recipe, LocalizationRecipe):
        from .localization import LocalizationTask
        from .rcnn import RCNNTask

        task = RCNNTask if recipe.rcnn else LocalizationTask
        return task(recipe, data_dir, world)
    assert isinstance(recipe, Recipe)
    return ClassificationTask(recipe, data_dir, world)


def check_same_data(folder: RunFolder, task: Task, resume: bool) -> dict[str, Any]:
    """Return what tells a task's data from others.

    Earlier versions noted less of the images; what was noted has to be the same. Images that may have been
    mended are noted.

    Raises:
        InputError: when a run is resumed on other images: it would be another run.
    """
    data = task.fingerprint()
    before: dict[str, Any] = {}
    for session in reversed(folder.sessions() if resume else []):
        before |= session.get("data") or {}
    if before.get("content") not in (None, data["content"]):
        # In what earlier versions noted, accents are apart where macOS has written them so.
        apart = task.fingerprint("NFD")["content"]
        before["content"] = data["content"] if before["content"] == apart else before["content"]
    now = {key: data.get(key) for key in before}
    if before == now:
        return data
    # Without what may be of mended images, and without which class or boxes each has.
    names = {"content": None, "labels": None}
    if before | names == now | names:
        if task.mends and before.get("labels") == now.get("labels"):
            if torchrun.rank() == 0:
                note("not all images are what they were when the run was begun")
            return data
        what = (
            "the same names to train on, but images, their classes or boxes, or what is tested on, are others"
        )
    else:
        what = f"then {before}, now {now}"
    raise InputError(
        f"{folder.path} was begun on other images ({what}); put them back, or start another run with --out"
    )


def _otherwise(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Return in what a session differs from the one before it that can change the last digits of numbers."""
    found = []
    for key in ("device", "instructions", "ranks", "threads"):
        # Older sessions lack some, and instructions are a CPU's.
        if None not in (before.get(key), now[key]) and before[key] != now[key]:
            found.append(f"{key}: {before[key]} then, {now[key]} now")
    then, here = (session.get("versions", {}).get("torch") for session in (before, now))
    if then not in (None, here):
        found.append(f"torch: {then} then, {here} now")
    return ", ".join(found)


@contextmanager
def working_in(
    folder: RunFolder, recipe: TrainingRecipe, resume: bool, device: torch.device, world: World, again: str
) -> Iterator[None]:
    """Open a run's folder for all ranks; what may end the work in it becomes a sentence, and closes it.

    The device is the current one for as long.

    Args, errors: as of ``RunFolder.open`` and ``troubles``.
    """
    world.barrier()
    if world.is_main:
        folder.open(recipe, resume)
    world.barrier()
    with troubles(recipe.name, folder, device, again), current(device):
        keep_freed_memory()
        yield


@contextmanager
def troubles(name: str, folder: RunFolder, device: torch.device, again: str) -> Iterator[None]:
    """Turn what may end a run into a sentence, and close its folder.

    Args:
        name: of the recipe.
        again: the command that continues the run.

    Raises:
        InputError, Interrupted: as the work inside does, and for a full disk, memory or impatience.
    """
    try:
        with stopped_with(f"stopped; what the last checkpoint holds is kept, continue with: {again}"):
            yield
    except (RuntimeError, MemoryError) as error:
        if memory_that_ran_out(error):
            raise InputError(f"{name}: {memory_ran_out(device)}") from None
        # What has no kernel that repeats bit for bit, and what cuBLAS reads before its first product.
        if "deterministic" not in str(error) or not torch.are_deterministic_algorithms_enabled():
            raise
        raise InputError(
            f"{name}: --deterministic: {first_line(error)}; leave it out, or start with "
            f"CUBLAS_WORKSPACE_CONFIG=:4096:8 where it is cuBLAS that refuses: {again}"
        ) from None
    except OSError as error:
        raise InputError(f"{_what_happened(error, folder.path)}; continue with: {again}") from None
    finally:
        folder.close()


@contextmanager
def stopped_with(sentence: str) -> Iterator[None]:
    """Have a signal end the work in this context with a sentence, as Ctrl-C does where no command listens.

    Raises:
        Interrupted: then.
    """
    try:
        with saying(sentence):
            yield
    except KeyboardInterrupt:
        raise Interrupted(sentence, signal.SIGINT) from None


def _what_happened(error: OSError, folder: Path) -> str:
    """Say what the system refused: what a run writes lies in its folder, and what it reads elsewhere."""
    file = error.filename if isinstance(error.filename, str) else None
    if file and not Path(file).absolute().is_relative_to(folder.absolute()):
        return f"{file}: {error.strerror}"
    return f"{cannot_write(folder, error)}; what was there is untouched"


def _continue(
    run: Run, task: Task, device: torch.device, data: dict[str, Any], data_dir: Path | None, resume: bool
) -> None:
    """Take up a run where its newest checkpoint left it, or at the start, and note the session."""
    checkpoints = run.folder.checkpoints()
    if checkpoints:
        run.restore(checkpoints[-1])
    # No rank writes before all have read.
    run.world.barrier()
    if run.world.is_main:
        if task.started_from and not checkpoints:
            print(f"{run.recipe.name}: starting from {task.started_from}", file=sys.stderr)
        note(*(f"this run departs from its recipe: {departure}" for departure in task.departures))
        note(*filter(None, [slow_bfloat16(device, run.recipe.precision)]))
        if resume:
            at = f"continuing at iteration {run.progress.iteration:,}" if checkpoints else "starting anew"
            why = "" if checkpoints else ": no checkpoint was due before it stopped"
            print(f"{run.recipe.name}: {at}{why}", file=sys.stderr)
        session = describe(device, run.world.size) | {
            "iteration": run.progress.iteration,
            "departures": task.departures,
            "started_from": task.started_from,
            "settings": run.folder.recipe_checksum(),
            "data": data,
            "data_dir": str(data_dir.resolve()) if data_dir else None,
            "launcher": distributed.launcher(),
        }
        sessions = run.folder.sessions()
        if checkpoints and sessions and (other := _otherwise(sessions[-1], session)):
            note(f"not as in the session before ({other}): the run is the same but for rounding")
        run.folder.add_session(session)
        # The last checkpoint comes before the last evaluation, which is done again.
        done = run.progress.iteration
        run.folder.cut_metrics(done - (done == run.recipe.schedule.iterations))


def _tell(faults: Sequence[str], what: str, listing: Path) -> None:
    """Say how many faults the data have, and list all of them in a file of the run folder."""
    if faults:
        replace_file(listing, "".join(f"{on_a_line(fault)}\n" for fault in faults))
        many = {"s": "s", "were": "were"} if len(faults) > 1 else {"s": "", "were": "was"}
        said = f"{len(faults):,} {what.format(**many)}"
        note(f"{said}, listed in {listing}; the first: {faults[0]}")


def _tensorboard_log(folder: Path) -> Callable[[dict[str, Any]], None]:
    """Return what writes a line of metrics.jsonl as TensorBoard's events."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise needs("--tensorboard", "tensorboard", "tensorboard") from None

    writer: SummaryWriter | None = None

    def log(line: dict[str, Any]) -> None:
        nonlocal writer
        # Opened by the first line: until then the run folder may not be there. What an earlier session has
        # written from there on, before it was killed, is no longer shown.
        writer = writer or SummaryWriter(str(folder), purge_step=line["iteration"])
        for split in line.keys() & {"train", "validation", "test"}:
            for name in line[split].keys() & {"loss", "top1_error", "ap50", "localization_error"}:
                # No image to test on, or none with an object, is no number.
                if line[split][name] is not None:
                    writer.add_scalar(f"{split}/{name}", line[split][name], line["iteration"])
        writer.add_scalar("learning_rate", line["learning_rate"], line["iteration"])
        writer.flush()

    return log
