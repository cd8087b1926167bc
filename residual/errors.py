"""What ends a command: wrong input, a package that lacks, or a signal; and what sentences are made of."""

import operator
import re
from collections.abc import Iterable

#: The packages of each of our extras, which ``pip install`` takes wherever we were installed from.
EXTRAS = {
    "detection": "pycocotools",
    "hub": "huggingface_hub",
    "tensorboard": "tensorboard",
    "heic": "pillow-heif",
    "onnx": "onnx onnxruntime onnxscript",
}


#: What is less like a misspelt name than the nearest one by so much is not meant.
NEARLY = 0.15
#: Letters of the longest sentence: some quote a line of a file, or all names that there are.
LONGEST = 1600
#: What ends a line, or moves the cursor of a terminal; names of files may have any of it.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def plural(count: int, word: str, words: str = "") -> str:
    """Return a number of things: "1 class", "1,000 classes"; ``words`` where an s is not enough."""
    return f"{count:,} {word if count == 1 else words or word + 's'}"


class InputError(Exception):
    """Something the user gave is wrong: one clear sentence that says what, where, and what to do.

    The command prints the sentence on stderr and exits with code 2; a library user catches it. It can be
    printed and written anywhere, whatever the names in it are made of, and however much it quotes.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(_shortened(on_a_line(sentence)))


class OtherData(InputError):
    """There is nothing to show of data: they are not those any more that a result is about, or it is none."""


class Interrupted(BaseException):
    """A signal stopped the work; in training a checkpoint was written.

    No Exception, as KeyboardInterrupt is none: what reads damaged files is not to take it for damage.

    Attributes:
        signal: its number; a shell expects the exit code 128 + signal.
    """

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.signal = number


def memory_that_ran_out(error: Exception) -> str:
    """Return which memory an error says has run out: "the GPU's memory", "the memory"; "" where it says none.

    By its words: what CUDA itself and Apple's GPUs raise has no class of its own, nor what PyTorch does on a
    CPU.
    """
    if isinstance(error, RuntimeError) and "out of memory" in str(error):
        return "the GPU's memory"
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    return "the memory" if on_cpu or isinstance(error, MemoryError) else ""


def is_lost_process(error: Exception) -> bool:
    """Whether PyTorch says that another process of the same run has ended; by its words, as above."""
    lost = ("Connection closed by peer", "Connection reset by peer")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in lost)


def printable(text: str) -> str:
    """Return a text that files and terminals take: bytes of file names that are no UTF-8 become ``\\xe9``.

    So do halves of letters, which JSON can name: ``\\ud83d``.
    """
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def on_a_line(text: str) -> str:
    """Return a name or a sentence as a part of a line: ``printable``, and a carriage return is ``\\r``."""
    return CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), printable(text))


def _shortened(text: str) -> str:
    """Return a sentence that fits a screen: what is wrong stands first, what to do about it last."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 400]} ... {text[-395:]}"


def needs(what: str, package: str, extra: str) -> InputError:
    """Return the error for something that needs a package which is not installed, of one of our extras."""
    return InputError(f"{what} needs the package {package}: pip install {EXTRAS[extra]}")


def whole_number(what: str, value: object, least: int = 1) -> int:
    """Return a whole number of any type, NumPy's too.

    Raises:
        InputError: for what is none, or less than ``least``.
    """
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        number = least - 1
    if number < least or isinstance(value, bool):
        raise InputError(f"{what} is a whole number of at least {least}, not {value!r}")
    return number


def whole_numbers(what: str, values: object, least: int = 1) -> tuple[int, ...]:
    """Return several whole numbers, or one that stands alone; errors as of ``whole_number``."""
    several = values if isinstance(values, Iterable) else [values]
    return tuple(whole_number(what, value, least) for value in several)


def nearest(name: object, known: Iterable[str]) -> str:
    """Return ``"; did you mean a or b?"`` for a misspelt ``name``, or a list of what there is.

    From Python names may be anything: None, or what prints as a name.
    """
    import difflib  # the command listens for signals after a few milliseconds, not before such imports

    known = list(known)
    close = difflib.get_close_matches(str(name), known, n=3, cutoff=0.5)
    if close:
        likeness = [difflib.SequenceMatcher(None, other, str(name)).ratio() for other in close]
        close = [other for other, ratio in zip(close, likeness, strict=True) if ratio > likeness[0] - NEARLY]
        return f"; did you mean {' or '.join(close)}?"
    return f"; known are {', '.join(known)}"
