"""The command ``residual``: arguments in, one sentence out for every wrong input."""

import sys
from contextlib import suppress
from typing import Annotated

import typer

from .. import __version__
from ..errors import InputError, Interrupted, is_lost_process, memory_that_ran_out
from . import (
    analyze,
    classification,
    detect,
    export,
    locate,
    output,
    predict,
    push,
    report,
    reproduce,
    statistics,
    weights,
)
from .help import use_plain_help
from .options import only_first_rank

app = typer.Typer(
    name="residual",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Deep Residual Learning for Image Recognition (He, Zhang, Ren, Sun, 2016): train, test, analyse, "
    "reproduce.",
    epilog="Start here: residual reproduce degradation",
)
app.add_typer(classification.app)
app.add_typer(report.app)
app.add_typer(predict.app)
app.add_typer(weights.app)
app.add_typer(statistics.app)
app.add_typer(export.app)
app.add_typer(push.app)
app.add_typer(analyze.app, name="analyze")
app.add_typer(detect.app, name="detect")
app.add_typer(locate.app, name="locate")
app.add_typer(reproduce.app, name="reproduce")
use_plain_help(app)


#: Commands that torchrun's processes do together.
SHARED = ("train", "finish", "evaluate", "ensemble", "detect", "locate", "reproduce")


@app.callback(invoke_without_command=True)
def top(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    only_first_rank(context, SHARED)
    if version:
        typer.echo(f"residual {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command; wrong input ends with one sentence on stderr and exit code 2.

    What is wrong with the command itself ends with exit code 70, and its traceback in a file.
    """
    try:
        with output.in_order():
            app()
    except InputError as error:
        _fail(str(error), 2)
    except Interrupted as error:
        _fail(str(error), 128 + error.signal)
    except BrokenPipeError:
        # The reader of our output (head, say) has gone; that is no error.
        sys.stderr.close()
    except Exception as error:
        if memory := memory_that_ran_out(error):
            _fail(
                f"{memory} ran out; take fewer images or smaller ones at a time (a lower --batch, --scales "
                f"or data.shorter_side){', or --device cpu' if 'GPU' in memory else ''}",
                2,
            )
        if is_lost_process(error):
            _fail("another of the processes that train together has ended; what it said tells why", 1)
        _fail(output.unexpected(error), 70)


def _fail(sentence: str, code: int) -> None:
    # Where nobody reads it the exit code is still right.
    with suppress(OSError):
        print(f"residual: {sentence}", file=sys.stderr, flush=True)
    sys.exit(code)
