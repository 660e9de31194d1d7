"""The house rules of the project, as tests; each was tried with a deliberate breach."""

import ast
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
COMMON, AGENT, CONTROLLER = (f"{name}/tshrag_{name}/" for name in ("common", "agent", "controller"))
PATHS = sorted(
    path for house in (COMMON, AGENT, CONTROLLER) for path in (ROOT / house).rglob("*.py")
)

MAY_IMPORT = {  # rooms below -> the only ones of ours that they may import
    COMMON: ("tshrag_common",),
    AGENT: ("tshrag_agent", "tshrag_common"),
    CONTROLLER: ("tshrag_controller", "tshrag_common"),
    CONTROLLER + "core/": ("tshrag_controller.core", "tshrag_common"),
    CONTROLLER + "reports/": ("tshrag_controller.reports", "tshrag_common"),
    CONTROLLER + "cli/": (
        "tshrag_controller.cli",
        "tshrag_controller.rehearsal",
        "tshrag_controller.reports",
        "tshrag_common",
    ),
    CONTROLLER + "rehearsal/": (
        "tshrag_controller.rehearsal",
        "tshrag_controller.core",
        "tshrag_common",
    ),
    AGENT + "shepherd/": ("tshrag_agent.shepherd",),
}
PURE = (  # reach nothing that acts, not even through another room
    CONTROLLER + "core/",
    CONTROLLER + "rehearsal/",
    COMMON + "work.py",
    COMMON + "states.py",
    COMMON + "digest.py",
    COMMON + "profile.py",
    COMMON + "statistics.py",
    COMMON + "criteria.py",
    COMMON + "subjects.py",
    COMMON + "channel/flow.py",
    COMMON + "channel/frames.py",
    AGENT + "attempts/fences.py",
    AGENT + "attempts/metric_lines.py",
    AGENT + "transport/expect.py",
    AGENT + "slots.py",
)
EFFECTS = {
    "asyncio", "time", "os", "pathlib", "logging", "socket", "subprocess", "threading", "sqlite3",
    "nats", "asyncssh", "serial", "click", "rich", "psutil", "random", "secrets",
}  # fmt: skip
MAY_PRINT = (CONTROLLER + "cli/", AGENT + "cli.py", CONTROLLER + "daemon.py")
DOORS = {  # library -> the rooms by which it comes in
    "nats": (COMMON + "bus/",),
    "sqlite3": (CONTROLLER + "store/", AGENT + "journal/"),
    "sqlite_utils": (CONTROLLER + "store/",),
    "duckdb": (CONTROLLER + "store/",),
    "numpy": (CONTROLLER + "store/",),
    "google": (CONTROLLER + "prometheus/remote.py",),
    "cramjam": (CONTROLLER + "prometheus/remote.py",),
    "obstore": (CONTROLLER + "store/objects.py",),
    "asyncssh": (AGENT + "transport/ssh", AGENT + "transport/open.py", AGENT + "simulator/"),
    "serial": (AGENT + "transport/",),
    "rich": (CONTROLLER + "cli/",),
    "click": (*MAY_PRINT, AGENT + "check.py"),
    "uvloop": (AGENT + "cli.py", CONTROLLER + "daemon.py"),
    "ruamel": (COMMON + "yamltext.py",),
}
LINES_MOST = 350
FUNCTION_LINES_MOST = 60


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts[1:])
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in PATHS}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def imports_of(path: Path, top_only: bool = False) -> frozenset[str]:
    """Return what a room imports, each name of ours as the module it means."""
    tree = tree_of(path)
    found: set[str] = set()
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = (f"{node.module}.{alias.name}" for alias in node.names)
            modules = {name for name in inner if name in MODULES}
            whole = len(modules) < len(node.names)
            found.update(modules | ({node.module} if whole else set()))
    return frozenset(found)


@cache
def reached(module: str) -> frozenset[str]:
    """Return everything that a module imports, through rooms of ours too."""
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        path = MODULES.get(waiting.pop())
        if path is None:
            continue
        for name in imports_of(path, top_only=True) - seen:
            seen.add(name)
            waiting.append(name)
    return frozenset(seen)


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=name_of)


@each(PATHS)
def test_imports_run_downwards(path: Path) -> None:
    for rooms, allowed in MAY_IMPORT.items():
        if name_of(path).startswith(rooms):
            ours = {name for name in imports_of(path) if name.startswith("tshrag_")}
            assert all(name.startswith(allowed) for name in ours), sorted(ours)


@each([path for path in PATHS if name_of(path).startswith(PURE)])
def test_pure_rooms_reach_nothing_that_acts(path: Path) -> None:
    acts = {name.split(".")[0] for name in reached(module_of(path))} & EFFECTS
    assert not acts, f"{name_of(path)} reaches {sorted(acts)}"


def test_imports_make_no_circle() -> None:
    graph = {name: imports_of(path) & MODULES.keys() - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()


@each(PATHS)
def test_libraries_come_in_by_their_doors(path: Path) -> None:
    for library, doors in DOORS.items():
        used = {name for name in imports_of(path) if name.split(".")[0] == library}
        assert not used or name_of(path).startswith(doors), f"{library} in {name_of(path)}"


@each(PATHS)
def test_only_one_room_spells_subjects(path: Path) -> None:
    if name_of(path) == COMMON + "subjects.py":
        return
    docstrings = {
        id(node.value)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    spelled = [
        node.value
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if node.value.startswith("lab.v1.agent") or node.value.startswith("lab.v1.req")
        if id(node) not in docstrings
    ]
    assert not spelled, spelled


@each(PATHS)
def test_rooms_and_functions_keep_their_size(path: Path) -> None:
    lines = path.read_text().count("\n")
    assert lines <= LINES_MOST, f"{lines} lines: which two things does it hold?"
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            assert length <= FUNCTION_LINES_MOST, f"{node.name} is {length} lines long"


@each(PATHS)
def test_every_room_says_what_it_is_for(path: Path) -> None:
    assert ast.get_docstring(tree_of(path)) or path.name == "__init__.py"


@each(PATHS)
def test_nobody_opts_out_of_a_rule_without_a_reason(path: Path) -> None:
    for number, line in enumerate(path.read_text().split("\n"), 1):
        assert not re.search(r"#\s*type:\s*ignore(?!\[)", line), f"{number}: no rule named"
        assert not re.search(r"#\s*noqa(?!:)", line), f"{number}: no rule named"
        assert "from __future__ import annotations" not in line, number
        assert "TYPE_CHECKING" not in line, f"{number}: repair the circle instead"


@each(PATHS)
def test_only_the_command_lines_print(path: Path) -> None:
    if name_of(path).startswith((*MAY_PRINT, AGENT + "simulator/", AGENT + "shepherd/")):
        return
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    printed = [
        call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "print"
    ]
    assert not printed


def test_versions_are_in_step() -> None:
    versions = {
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"]["version"]
        for folder in ("", "common", "agent", "controller")
    }
    assert len(versions) == 1


def test_no_file_names_a_registry_or_a_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split("\0")
    odd = re.compile(r"pypi\.org|pythonhosted|registry\.npmjs|deb\.debian\.org|/home/\w|/work/main")
    for name in listed:
        path = ROOT / name
        if not name or name in ("uv.lock", "tests/test_house.py") or not path.is_file():
            continue
        text = path.read_bytes().decode("utf-8", "replace")
        found = odd.search(text)
        assert found is None, f"{name}: {found[0] if found else ''}"


def test_the_two_commands_are_there() -> None:
    readme = (ROOT / "README.md").read_text()
    assert "make demo" in readme
    assert "make test" in readme
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_python_is_new_enough() -> None:
    assert sys.version_info >= (3, 11)
