"""Options that many commands share."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

Function = Callable[..., Any]

FORMATS = ("table", "json", "quiet")


class Command(click.Command):
    """A command whose help ends with examples."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **more: Any) -> None:
        super().__init__(*args, **more)
        self.examples = tuple(examples)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        write_examples(formatter, self.examples)


def command(name: str | None = None, *, examples: Sequence[str]) -> Callable[[Function], Command]:
    """Make a command of a function; `examples` are what people type."""
    return click.command(name, cls=Command, examples=examples)


def write_examples(formatter: click.HelpFormatter, examples: Sequence[str]) -> None:
    """Write `examples` as they are: a line that is wrapped cannot be copied."""
    if examples:
        with formatter.section("Examples"):
            for example in examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def in_lab(command: Function) -> Function:
    """Give a command ``--url --creds --org``; it gets a `Connection` as its first argument."""

    @click.option("--url", metavar="URL", help="The lab's bus, nats://HOST:PORT [TSHRAG_NATS_URL].")
    @click.option("--creds", metavar="FILE", help="Your credentials [TSHRAG_CREDS].")
    @click.option("--org", metavar="ORG", help="Your org, where the bus has no accounts.")
    @functools.wraps(command)
    def found(url: str | None, creds: str | None, org: str | None, **rest: Any) -> Any:
        from tshrag_controller.cli.context import find

        return command(find({"url": url, "creds": creds, "org": org}), **rest)

    return found


def readable(command: Function) -> Function:
    """Give a command ``-o/--output`` and ``--json``; it gets the format as ``output``."""

    @click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        show_default=True,
        help="For people, for programs, or ids only.",
    )
    @click.option("--json", "as_json", is_flag=True, help="The same as -o json.")
    @functools.wraps(command)
    def found(as_json: bool, output: str, **rest: Any) -> Any:
        return command(output="json" if as_json else output, **rest)

    return found


class Priority(click.ParamType[Any]):
    """0 to 100, or a word for it."""

    name = "priority"
    WORDS: Mapping[str, int] = {"low": 25, "normal": 50, "high": 75, "urgent": 100}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).lower()
        number = self.WORDS.get(text, int(text) if text.isdecimal() else -1)
        if not 0 <= number <= 100:
            self.fail(f"{value!r} is neither 0..100 nor one of {', '.join(self.WORDS)}", param, ctx)
        return number


class Seconds(click.ParamType[Any]):
    """A duration like 90s or 10m; a bare number is seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        from tshrag_common.errors import LabError
        from tshrag_common.times import duration_s

        given = float(value) if str(value).replace(".", "", 1).isdecimal() else value
        try:
            return duration_s(given, param.name if param and param.name else "", least_s=0)
        except LabError as error:
            self.fail(str(error), param, ctx)


class Moment(click.ParamType[Any]):
    """An instant: ISO 8601 (local time where it names no zone), now, +10m, microseconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        import time
        from datetime import datetime

        from tshrag_common.errors import LabError
        from tshrag_common.times import instant

        zone = datetime.now().astimezone().tzinfo
        try:
            at = instant(value, time.time_ns() // 1000, zone=zone) if zone else instant(value, 0)
        except LabError as error:
            self.fail(error.what, param, ctx)
        return at


class Variable(click.ParamType[Any]):
    """NAME=VALUE; the value may hold ``=``."""

    name = "name=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = str(value).partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text
