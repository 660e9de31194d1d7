"""PURE: all that is wrong with one document, each with its path, its line and how to mend it."""

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from tshrag_common.documents import Document
from tshrag_common.errors import Invalid, Problem
from tshrag_common.positions import At, path_text

MAX_PROBLEMS = 100


class Findings:
    """Problems in the order in which they were found; lines only where a document has a name."""

    def __init__(self, document: Document | None = None) -> None:
        self.problems: list[Problem] = []
        self._file = document.file if document else ""
        self._lines: Mapping[At, int] = document.lines if document else {}
        self._words: dict[At, At] = {}  # path in the words of the model -> as it was written
        self._outside: set[At] = set()
        self._found_at: list[At] = []
        self._settled: list[At] = []
        self._left_out = 0

    def add(self, code: str, at: At, what: str, fix: str = "") -> None:
        """Note one problem at `at`, a path in the words of the model; a second time it is one."""
        written = self._written(at)
        if any(_related(written, settled) for settled in self._settled):
            return
        where, line = path_text(written), self._line(written)
        file = "" if written[:1] in self._outside else self._file
        line = line if file else 0
        found = Problem(code=code, where=where, what=what, fix=fix, line=line, file=file)
        if found in self.problems:
            return
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(found)
            self._found_at.append(written)
        else:
            self._left_out += 1

    def add_all(self, problems: Iterable[Problem], under: At = ()) -> None:
        """Note what another room has found below `under`; it knows paths, but no file or line."""
        above = path_text(under)
        settled = {path_text(at) for at in self._settled}
        lines = {path_text(at): line for at, line in self._lines.items()}
        for problem in problems:
            where = f"{above}.{problem.where}" if above else problem.where
            if any(path.startswith(where) for path in settled):
                continue
            found = (lines[path] for path in _upwards(where) if path in lines)
            line = next(found, 0) if self._file else 0
            placed = msgspec.structs.replace(problem, where=where, line=line, file=self._file)
            self.problems.append(placed)

    def spelled(self, at: At, word: str) -> None:
        """Remember that the field at `at` is called `word` by the author."""
        self._words[at] = (*self._written(at[:-1]), word)

    def second_look(self) -> None:
        """From here on leave out what is at, in or around a problem that is known: it follows."""
        self._settled = list(self._found_at)

    def renamed(self, at: At, name: str) -> None:
        """Show `name`, which stands in no file, for the field at `at`."""
        self._words[at] = (name,)
        self._outside.add((name,))

    def check(self) -> None:
        """Raise Invalid when anything was found."""
        if self.problems:
            raise self.invalid()

    def invalid(self) -> Invalid:
        """Return all that was found as one error."""
        more = f"and {self._left_out} more problems"
        last = [Problem(code="more", where="", what=more)] if self._left_out else []
        return Invalid([*self.problems, *last])

    def _written(self, at: At) -> At:
        found: At = ()
        for size in range(1, len(at) + 1):
            found = self._words.get(at[:size], (*found, at[size - 1]))
        return found

    def _line(self, written: At) -> int:
        for size in range(len(written), -1, -1):
            if written[:size] in self._lines:
                return self._lines[written[:size]]
        return 0


def _related(one: At, other: At) -> bool:
    size = min(len(one), len(other))
    return size > 0 and one[:size] == other[:size]


def _upwards(path: str) -> Iterator[str]:
    """Yield `path` and all that it is in: ``a.b[0].c``, ``a.b[0]``, ``a.b``, ``a`` and nothing."""
    while path:
        yield path
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    yield ""
