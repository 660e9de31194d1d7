"""Every command of ``tshrag`` with its options, as a page of the reference has it."""

import inspect
from collections.abc import Iterator

import click

from tshrag_controller.cli.app import app

SHARED = ("help", "url", "creds", "output", "as_json")
"""Options that many commands have: the page tells of them once."""


def commands(
    group: click.Group = app, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    """Yield every command by the words that call it."""
    ctx = click.Context(group)
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        elif command is not None:
            yield " ".join((*path, name)), command


def commands_text() -> str:
    """Return a section for each command."""
    return "\n\n".join(_section(name, command) for name, command in commands())


def options_of(command: click.Command) -> list[click.Option]:
    """Return the options of a command that are its own."""
    own = [each for each in command.params if isinstance(each, click.Option)]
    return [each for each in own if each.name not in SHARED and not _is_shared_org(each)]


def _is_shared_org(option: click.Option) -> bool:
    return option.name == "org" and not option.default


def _section(name: str, command: click.Command) -> str:
    ctx = click.Context(command, info_name=f"tshrag {name}")
    usage = " ".join(command.collect_usage_pieces(ctx))
    lines = [f"## tshrag {name}", "", f"`tshrag {name} {usage}`", "", *_paragraphs(command)]
    options = options_of(command)
    if options:
        lines += ["| option | means |", "|---|---|"]
        lines += [f"| {_names(each)} | {_about(each)} |" for each in options]
        lines.append("")
    examples = getattr(command, "examples", ())
    if examples:
        lines += ["```sh", *examples, "```"]
    return "\n".join(lines).rstrip()


def _paragraphs(command: click.Command) -> list[str]:
    return [*inspect.cleandoc((command.help or "").replace("\b", "")).split("\n"), ""]


def _names(option: click.Option) -> str:
    words = ", ".join([*option.opts, *option.secondary_opts])
    return f"`{words}`"


def _about(option: click.Option) -> str:
    about = (option.help or "").replace("|", "\\|")
    shown = option.default if isinstance(option.default, str | int | float) else None
    if shown is not None and shown != "" and not option.is_flag:
        about = f"{about} Default: {shown}.".strip()
    if isinstance(option.type, click.Choice):
        about = f"{about} One of {', '.join(map(str, option.type.choices))}.".strip()
    return about
