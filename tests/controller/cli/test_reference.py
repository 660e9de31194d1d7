"""The page of the command line tells of every command and every option."""

import pytest

from tests.support.draw_docs import DOCS
from tests.support.drawn_commands import commands, options_of

PAGE = (DOCS / "reference" / "cli.md").read_text()
EVERY = dict(commands())


@pytest.mark.parametrize("name", EVERY)
def test_every_command_is_documented(name: str) -> None:
    section = PAGE.partition(f"## tshrag {name}\n")[2].partition("\n## ")[0]
    assert section, f"draw it: python -m tests.support.draw_docs (tshrag {name})"
    for option in options_of(EVERY[name]):
        for word in option.opts:
            assert word in section, f"{word} of tshrag {name}"
