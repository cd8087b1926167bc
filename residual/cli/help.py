"""What --help shows of a command, and what is said of a wrong value: no Python types, no hidden arguments."""

import re
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperCommand


class Command(TyperCommand):
    """A command whose help and refusals are in a user's words.

    typer writes an argument that may be given several times as ``<list[str]>``, and names hidden ones in the
    usage line.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            # What pydantic writes before a reason, for typer.
            error.message = error.message.removeprefix("Value error, ")
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        pieces = [self.options_metavar] if self.options_metavar else []
        for parameter in self.get_params(ctx):
            if not getattr(parameter, "hidden", False):
                pieces += parameter.get_usage_pieces(ctx)
        return pieces

    def format_options(self, ctx: Any, formatter: Any) -> None:
        for kind, title in (("argument", "Arguments"), ("option", "Options")):
            shown = [p.get_help_record(ctx) for p in self.get_params(ctx) if p.param_type_name == kind]
            if rows := [(_plain(record[0]), record[1]) for record in shown if record]:
                with formatter.section(title):
                    formatter.write_dl(rows)


def use_plain_help(app: typer.Typer) -> None:
    """Give every command of an application, and of its groups, a help in a user's words."""
    for group in _with_groups(app):
        for command in group.registered_commands:
            command.cls = Command


def _with_groups(app: typer.Typer) -> Iterator[typer.Typer]:
    yield app
    for group in app.registered_groups:
        if group.typer_instance:
            yield from _with_groups(group.typer_instance)


def _plain(name: str) -> str:
    return re.sub(r"<list\[(\w+)\]>", lambda match: f"<{match[1].lower()}>", name)
