"""What people read is true: links lead somewhere, drawn parts are fresh, examples are valid.

A fenced block says with its second word how it is tried: ``console run`` is executed, ``profile``,
``load``, ``agent`` and ``controller`` are read by the very reader that the product has.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.support.draw_docs import BLOCKS, DOCS, ROOT, drawn, names
from tests.support.drawn_errors import codes
from tests.support.drawn_settings import AS_ABOVE, FILES, said_of, settings_of
from tshrag_agent.settings import AgentSettings
from tshrag_common.keys import read_bundle
from tshrag_common.manifest import read_manifest
from tshrag_common.reading import read_profile
from tshrag_common.settings import read_settings
from tshrag_controller.nats_server.binary import nats_server
from tshrag_controller.settings import ControllerSettings

PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
READ = [page for page in PAGES if "decisions" not in page.parts]
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```(\w+) (\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", paths, ids=name_of)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$|`[^`\n]+`", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page, as the usual hosts make them of its headings."""
    titles = (_LINK.sub("", title).replace("`", "") for title in _HEADING.findall(path.read_text()))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each(PAGES)
def test_links_lead_somewhere(page: Path) -> None:
    for link in _LINK.findall(without_code(page.read_text())):
        if link.startswith(("https://", "mailto:")):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        assert path.exists(), f"{link} in {name_of(page)}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{link} in {name_of(page)}: no such heading"


def test_every_page_can_be_reached_from_the_index() -> None:
    found, waiting = set[Path](), [ROOT / "README.md", DOCS / "index.md"]
    while waiting:
        page = waiting.pop()
        if page in found or page.suffix != ".md" or not page.is_file():
            continue
        found.add(page)
        links = _LINK.findall(without_code(page.read_text()))
        waiting += [(page.parent / link.partition("#")[0]).resolve() for link in links]
    lost = [name_of(page) for page in PAGES if page not in found]
    assert not lost


@each([page for page in PAGES if names(page.read_text())])
def test_drawn_parts_are_fresh(page: Path) -> None:
    text = page.read_text()
    if page.name != "errors.md":  # there the codes count: see below
        assert drawn(text) == text, "make docs"


def test_every_block_is_drawn_somewhere() -> None:
    used = {name for page in PAGES for name in names(page.read_text())}
    assert used == set(BLOCKS)


def test_every_error_code_is_listed_and_no_other() -> None:
    text = (DOCS / "reference/errors.md").read_text().partition("## Reasons")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == codes(), "make docs"


@pytest.mark.parametrize("name", FILES)
def test_the_example_of_settings_shows_every_setting_with_a_comment(name: str) -> None:
    settings, shown = settings_of(name), said_of(name)
    assert [path for path in settings if not shown.get(path)] == []
    copies = tuple(f"{table}." for table in AS_ABOVE)
    assert [path for path in shown if path not in settings and not path.startswith(copies)] == []


@pytest.mark.parametrize(("name", "struct"), [(n, s) for n, (s, _) in FILES.items()])
def test_the_example_of_settings_is_valid_with_every_line_switched_on(
    name: str, struct: type[AgentSettings] | type[ControllerSettings]
) -> None:
    text = FILES[name][1].read_text()
    read_settings(struct, text.encode(), name)
    switched_on = re.sub(r"^# (\w+ = |\[[\w.]+\])", r"\1", text, flags=re.MULTILINE)
    read_settings(struct, switched_on.encode(), name)


def test_the_example_of_the_controller_shows_the_defaults() -> None:
    text = re.sub(r"^# (\w+ = )", r"\1", FILES["controller"][1].read_text(), flags=re.MULTILINE)
    assert read_settings(ControllerSettings, text.encode(), "shown") == ControllerSettings()
    assert tomllib.loads(text)


def test_every_variable_of_a_job_is_listed() -> None:
    source = (ROOT / "agent/tshrag_agent/attempts/environment.py").read_text()
    page = (DOCS / "reference/environment.md").read_text()
    for variable in set(re.findall(r'"(TSHRAG_\w+|\w+_SEED)"', source)):
        assert f"`{variable}`" in page


def blocks(kind: str) -> list[tuple[Path, str, str]]:
    """Return (page, language, text) of the fenced blocks of one kind."""
    return [
        (page, language, text)
        for page in READ
        for language, word, text in _FENCE.findall(page.read_text())
        if word == kind
    ]


READERS: Mapping[str, Callable[[bytes, str], object]] = {
    "profile": read_profile,
    "load": read_manifest,
    "agent": partial(read_settings, AgentSettings),
    "controller": partial(read_settings, ControllerSettings),
}


@pytest.mark.parametrize("kind", READERS)
def test_examples_in_the_pages_are_valid(kind: str) -> None:
    found = blocks(kind)
    assert found, f"no page shows a {kind}"
    for page, language, text in found:
        READERS[kind](text.encode(), f"{name_of(page)}.{language}")


@pytest.mark.parametrize(
    ("page", "text"), [(name_of(page), text) for page, _, text in blocks("run")]
)
def test_commands_in_the_pages_say_what_the_pages_say(page: str, text: str, tmp_path: Path) -> None:
    for command, wanted in sessions(text):
        said = executed(command, tmp_path)
        pattern = ".*".join(re.escape(part) for part in wanted.split("…"))
        assert re.search(pattern, said, re.DOTALL), f"{page}: $ {command}\n{said}"


def test_the_program_for_accounts_of_an_external_server_works(tmp_path: Path) -> None:
    ((_, _, program),) = blocks("accounts")
    (tmp_path / "accounts.py").write_text(program)
    state = tmp_path / "lab"
    done = subprocess.run(
        [sys.executable, "accounts.py", str(state), "nats://lab.example:4222"],
        cwd=tmp_path, capture_output=True, text=True, timeout=50, check=True,
    )  # fmt: skip
    assert set(json.loads(done.stdout)) == {"operator", "system_account", "resolver_preload"}
    assert read_bundle(state / "controller.bundle").url == "nats://lab.example:4222"


def test_the_configuration_of_an_external_server_is_one(tmp_path: Path) -> None:
    text = (ROOT / "configs/nats.json").read_text()
    assert text in (DOCS / "how-to/external-nats.md").read_text()
    config = tmp_path / "nats.json"
    config.write_text(text.replace("/var/lib/tshrag-nats", str(tmp_path)))
    done = subprocess.run(
        [nats_server(), "-t", "-c", str(config)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def sessions(text: str) -> list[tuple[str, str]]:
    """Return (command, what it says) of a console block."""
    parts = re.split(r"^\$ (.+)\n", text, flags=re.MULTILINE)[1:]
    return [(parts[at], parts[at + 1].strip()) for at in range(0, len(parts), 2)]


def executed(command: str, folder: Path) -> str:
    environment: Mapping[str, str] = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(folder),
        "COLUMNS": "100",
    }
    words = [word.replace("configs/", f"{ROOT}/configs/") for word in shlex.split(command)]
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, timeout=50, check=False
    )
    return (done.stdout + done.stderr).replace(f"{ROOT}/", "")


def test_decisions_say_what_was_decided_and_what_it_costs() -> None:
    numbers: list[str] = []
    for page in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        text = page.read_text()
        numbers.append(page.name[:4])
        assert re.match(f"# {page.name[:4]}:? ", text), page.name
        for part in ("decision", "cost"):
            assert part in text.lower(), f"{page.name} says nothing of {part}"
    assert len(numbers) == len(set(numbers)), "two decisions have one number"
