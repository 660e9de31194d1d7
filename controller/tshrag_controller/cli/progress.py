"""What a person sees while they wait: on a terminal only, on stderr, and gone when it is over."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from tshrag_controller.reports.text import clean


class Progress(Protocol):
    """Says what is being done."""

    def say(self, what: str) -> None:
        """Show that `what` is being done."""
        ...

    def advance(self, what: str, done: int, total: int) -> None:
        """Show how far `what` is."""
        ...


class Silence:
    """Nobody looks."""

    def say(self, what: str) -> None:
        return

    def advance(self, what: str, done: int, total: int) -> None:
        return


@contextmanager
def progress(output: str = "table") -> Iterator[Progress]:
    """Yield what shows progress: a line on a terminal, nothing for programs."""
    if output != "table" or not sys.stderr.isatty():
        yield Silence()
        return
    from rich import progress as bars
    from rich.text import Text

    from tshrag_controller.cli.render import console

    columns = (
        bars.SpinnerColumn(),
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(24),
        bars.TaskProgressColumn(),
    )
    with bars.Progress(*columns, console=console(err=True), transient=True) as shown:
        yield _Bar(shown, shown.add_task(Text("connecting").plain, total=None))


class _Bar:
    def __init__(self, shown: "object", task: int) -> None:
        self._shown, self._task = shown, task
        self._what = ""

    def say(self, what: str) -> None:
        self._update(what, 0, None)

    def advance(self, what: str, done: int, total: int) -> None:
        """Show it; a total of 0 is one that nobody knows."""
        self._update(what, done, total or None)

    def _update(self, what: str, done: int, total: int | None) -> None:
        from rich.progress import Progress as Bars, TaskID

        assert isinstance(self._shown, Bars)
        if total is None and what != self._what:  # a task cannot lose its total
            self._shown.remove_task(TaskID(self._task))
            self._task = self._shown.add_task("", total=None)
        self._what = what
        self._shown.update(
            TaskID(self._task), description=clean(what, 60), completed=done, total=total
        )
