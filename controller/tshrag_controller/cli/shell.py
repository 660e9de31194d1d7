"""A prompt that takes the same commands."""

import contextlib
import shlex

import click

from tshrag_controller.cli import options

ENDS = ("exit", "quit")


@options.command(examples=("tshrag shell", "tshrag> list --limit 3", "tshrag> exit"))
def shell() -> None:
    """A prompt that takes every command of tshrag; 'exit' or Ctrl-D leaves it."""
    from tshrag_controller.cli.app import invoke

    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # importing it gives the prompt a history
    while True:
        try:
            line = input("tshrag> ").strip()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            click.echo()
            continue
        if line in ENDS:
            return
        words = _words(line)
        if words:
            with contextlib.suppress(SystemExit):
                invoke(words)


def _words(line: str) -> list[str]:
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        click.echo(f"usage: {error}", err=True)
        return []
    return words[1:] if words[:1] == ["tshrag"] else words
