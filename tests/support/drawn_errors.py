"""Every error code of the lab, collected from the code that says it.

A code is a ``code`` of a class or of a call, the first word of a call that notes a problem, or the
word before the colon in a refusal of a sample. Texts are shown with ``…`` where a value goes.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent.parent
HOUSES = ("common/tshrag_common", "agent/tshrag_agent", "controller/tshrag_controller")

CODE_FIRST = {  # calls whose first argument is a code -> places of what and fix
    "TransportFailed": (2, 3),
    "Rejected": (2, 3),
    "failed": (1, 2),
    "add": (2, 3),
    "_add": (2, 3),
    "_problem": (2, 3),
    "_say": (1, 2),
}
SAYS = {"Problem": "what", "Fault": "what", "ErrorReport": "message"}
HOLES = {  # codes that are put together
    "…_empty": ["profile_empty", "manifest_empty", "config_empty"],
    "…_failed": ["setup_failed", "cleanup_failed"],
    "host_…": ["host_lease", "host_lost", "host_orphaned", "host_shepherd_stopped"],
    "unknown_…": ["unknown_dut", "unknown_host"],
}
_CODE = re.compile(r"[a-z][a-z0-9_]*")
_WORDS_MOST = 3  # of the texts of one code

MEANINGS: dict[str, tuple[str, str]] = {  # where the texts in the code say too little
    "choice": ("not one of the words that are allowed here", "take one of those named"),
    "command": ("a command is empty, holds a NUL, or its quotes do not close", "correct it"),
    "config": ("settings that cannot be used: an address, a key, a file", "see the field named"),
    "console_death": ("the console said what must not be: a kernel panic, ...", "see its output"),
    "boot_failed": ("the board did not come to the state that was asked for", "see its output"),
    "creds": (
        "credentials that are missing, damaged, readable by others, or of another name",
        "take the file as it was printed; `chmod 600`",
    ),
    "cycle": ("steps need each other in a circle; all of it is named", "take one `needs` away"),
    "duplicate_dut": ("a DUT stands twice in the targets of one run", "name it once"),
    "env_reserved": ("a variable that the lab sets itself", "choose another name"),
    "exit": ("a process ended with another status than 0, or by a signal", "see `tshrag logs`"),
    "failed": ("a load inside the agent said that it did not hold", "see its message"),
    "file": ("a file of the command line is not there", "name a file that is there"),
    "agent_restarted": ("the agent was started again in the middle of it", "retried by itself"),
    "agent_stopped": ("the agent was stopped while it ran", "retried by itself"),
    "already_running": ("another process has this state folder", "stop it, or take another folder"),
    "attempts_exhausted": ("every attempt met a fault of the lab", "see `tshrag status JOB`"),
    "bad_seal": ("a message that the one it names has not sealed", "dropped and counted"),
    "busy": ("the controller is behind", "ask again"),
    "cleanup_failed": ("the cleanup of a load failed", "see its output"),
    "creds_denied": (
        "the server does not take these credentials any more",
        "enrol the agent again: `tshrag agent enroll`",
    ),
    "draining": ("its agent takes nothing new", "placed elsewhere by itself"),
    "entry_missing": ("load.toml names an entry that is not in the load", "correct load.toml"),
    "host_lease": ("a process of the host was ended: its lease was over", "retried by itself"),
    "host_lost": ("a process of the host is gone, with its shepherd", "retried by itself"),
    "host_orphaned": ("a process of the host was ended: no agent came back for it", ""),
    "host_shepherd_stopped": ("a process of the host was ended with its shepherd", ""),
    "log_behind_projection": (
        "the LOG was lost or shortened; leading on would give fences twice",
        "[recover](../how-to/recover.md)",
    ),
    "log_in_use": (
        "the LOG is not lost, so `--reseed` does not begin it anew",
        "start the controller; see [recover](../how-to/recover.md)",
    ),
    "log_lost": ("its run was alive when the LOG was lost and begun anew", "`tshrag retry RUN`"),
    "nothing_known": ("`--reseed` was asked of a controller without a past", "start it"),
    "log_gap": (
        "the LOG begins behind what the checkpoint covers",
        "[recover](../how-to/recover.md)",
    ),
    "schema": ("a file that a newer build has written", "upgrade this one"),
    "setup_failed": ("the setup of a load failed", "see its output"),
    "spool_corrupt": (
        "the agent's journal was damaged; it is set aside, whole records were kept",
        "[recover](../how-to/recover.md)",
    ),
    "start_failed": ("a process of the host could not be started", "the error says why"),
    "incomplete": (
        "samples or output of an ended attempt did not arrive in time",
        "`tshrag retry`",
    ),
    "internal": ("a bug of ours", "please report it, with the log"),
    "jetstream": ("nats-server refuses a request of JetStream, in its own words", ""),
    "json_syntax": ("no JSON at this line and column", ""),
    "kind": ("a step that is none or several of the kinds, or a field that it cannot have", ""),
    "lost": ("its agent stayed away beyond its limit, or forgot it", "see `tshrag agent show`"),
    "metric_conflict": ("a key came with another unit or type than before", "correct the load"),
    "metric_key": ("no key, one outside the namespace of the load, or one too many", ""),
    "metric_time": ("a time or duration that cannot be read, or outside 2000..2100", ""),
    "metric_type": ("a sample of another type than its key is declared with", "correct the load"),
    "metric_value": ("not a finite number below 2^64", "correct the load"),
    "name": ("a name with characters that are not allowed, or too long", "the error says which"),
    "nats": ("the bus cannot be reached; tried again for ever by agent and controller", ""),
    "nats_claims": ("nats-server does not take the JWT of an account", "see its log"),
    "params": ("params that a load inside the agent does not take", "see its message"),
    "path": ("a path that leads outside the job directory or the load", "write it relative"),
    "no_outlet": (
        "the controller knows no outlet of this board",
        "`[outlet.NAME]` in controller.toml, or `--lost` with a reason",
    ),
    "power_unconfirmed": (
        "the outlet does not say that the board was off, or is on again; nothing was given up",
        "look at the outlet, try its commands by hand",
    ),
    "power_failed": ("a power command is missing or failed; its output is shown", "try it by hand"),
    "serial_busy": (
        "another process holds the device; named where it can be found",
        "end it: the agent shares the line with everybody",
    ),
    "serial_perm": ("no right to open the device", "the error says which group to join"),
    "sha256_mismatch": ("bytes that are not those asked for; nothing was started", ""),
    "toml_syntax": ("no TOML at this line and column", ""),
    "type": ("a value of another type than the field", "the error shows what to write"),
    "unit": ("an unknown unit, or one of another dimension than the metric", ""),
    "unknown_dependency": ("`needs` names a step that is not there", "nearest: …"),
    "unknown_dut": ("a DUT that no agent has reported", "nearest: …"),
    "unknown_field": ("a key that the format does not know", "did you mean …?"),
    "unknown_param": ("a param that the load does not declare", "did you mean …?"),
    "unknown_target": ("a step names a target that is not in `targets`", "did you mean …?"),
    "yaml_syntax": ("no YAML at this line and column", ""),
}


Texts = dict[str, ast.expr]
"""What the names of a function stand for."""


class Said(NamedTuple):
    """One place that says a code."""

    code: str
    what: str
    fix: str
    house: str  # common, agent, controller


def collected() -> list[Said]:
    """Return all that is said, by code, then in the order of the files."""
    found: list[Said] = []
    for house in HOUSES:
        for path in sorted((ROOT / house).rglob("*.py")):
            if path.name != "demo_lab.py":
                name = house.partition("/")[0]
                found += [said._replace(house=name) for said in _of_file(path)]
    return sorted(found, key=lambda said: said.code)


def errors_table() -> str:
    """Return the table of codes: what each says or means, and how to go on."""
    rows: dict[str, list[Said]] = {}
    for said in collected():
        rows.setdefault(said.code, []).append(said)
    lines = ["| code | what it says | what to do | said by |", "|---|---|---|---|"]
    for code, each in rows.items():
        meaning, advice = MEANINGS.get(code, ("", ""))
        what = meaning or _joined([said.what for said in each])
        fix = advice or _joined([said.fix for said in each])
        by = ", ".join(sorted({said.house for said in each}))
        lines.append(f"| `{code}` | {what} | {fix} | {by} |")
    return "\n".join(lines)


def collected_reasons() -> list[tuple[str, str]]:
    """Return (word, sentence) of all that `why` can give as a reason."""
    found: list[tuple[str, str]] = []
    for path in sorted((ROOT / HOUSES[2] / "core").glob("*.py")):
        for function, lines in _functions(ast.parse(path.read_text())):
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and _name(node.func) == "Reason":
                    texts = _known_at(node, lines)
                    found += [(code, _text(node.args[1], texts)) for code in _words(node.args[0])]
    return found


def codes() -> set[str]:
    return {said.code for said in collected()}


def _joined(texts: list[str]) -> str:
    unique = list(dict.fromkeys(text for text in texts if text.strip(" …:;,")))
    more = " / …" if len(unique) > _WORDS_MOST else ""
    return (" / ".join(unique[:_WORDS_MOST]) + more).replace("|", "\\|")


@cache
def _of_file(path: Path) -> tuple[Said, ...]:
    tree = ast.parse(path.read_text())
    return (*_of_classes(tree), *_of_calls(tree), *_of_types(tree))


def _of_classes(tree: ast.Module) -> Iterator[Said]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.ClassDef):
            continue
        for line in node.body:
            if isinstance(line, ast.Assign) and _name(line.targets[0]) == "code":
                about = (ast.get_docstring(node) or "").partition("\n\n")[0]
                for code in _words(line.value):
                    yield Said(code, " ".join(about.split()), "", "")


def _of_calls(tree: ast.Module) -> Iterator[Said]:
    for function, lines in _functions(tree):
        for node in ast.walk(function):
            if isinstance(node, ast.Call):
                yield from _of_call(node, _known_at(node, lines))
            elif isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple):
                yield from _of_diagnosis(function, node.value, _known_at(node.value, lines))


def _of_types(tree: ast.Module) -> Iterator[Said]:
    """Yield codes that stand with a type: ``Meta(extra={"code": …})``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                if isinstance(key, ast.Constant) and key.value == "code":
                    yield from (Said(code, "", "", "") for code in _words(value))


def _functions(tree: ast.Module) -> Iterator[tuple[ast.AST, list[ast.Assign]]]:
    """Yield every function with the assignments in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = [line for line in ast.walk(node) if isinstance(line, ast.Assign)]
            yield node, sorted(lines, key=lambda line: line.lineno)


def _known_at(node: ast.expr, lines: list[ast.Assign]) -> Texts:
    """Return what names stand for where `node` is: what was assigned to them last before it."""
    before = [line for line in lines if line.lineno < node.lineno]
    return {_name(line.targets[0]): line.value for line in before}


def _of_call(call: ast.Call, texts: Texts) -> Iterator[Said]:
    name = _name(call.func)
    by_name = {keyword.arg: keyword.value for keyword in call.keywords}
    if name == "NotFound" and call.args:
        yield from (
            Said(f"unknown_{kind}", "there is no such thing", "nearest: …", "")
            for kind in _words(call.args[0])
        )
    elif name == "refuse" and len(call.args) > 1:
        code, colon, about = _text(call.args[1], texts).partition(": ")
        if colon and code.isidentifier():
            yield Said(code, about, "", "")
    elif name in CODE_FIRST and len(call.args) > CODE_FIRST[name][0]:
        what, fix = (next(iter(call.args[at : at + 1]), None) for at in CODE_FIRST[name])
        yield from _said(call.args[0], what, fix, texts)
    elif "code" in by_name:
        what = by_name.get(SAYS.get(name, "")) or next(iter(call.args[1:2]), None)
        yield from _said(
            by_name["code"], what, by_name.get("fix") or next(iter(call.args[2:3]), None), texts
        )


def _said(
    code: ast.expr, what: ast.expr | None, fix: ast.expr | None, texts: Texts
) -> Iterator[Said]:
    if isinstance(code, ast.Name):
        code = texts.get(code.id, code)
    yield from (Said(each, _text(what, texts), _text(fix, texts), "") for each in _words(code))


def _of_diagnosis(function: ast.AST, value: ast.Tuple, texts: Texts) -> Iterator[Said]:
    """Yield ``return code, what, fix`` of a function that says so by its type."""
    returns = getattr(function, "returns", None)
    if returns is None or "TransportCode" not in ast.unparse(returns):
        return
    what, fix = (next(iter(value.elts[at : at + 1]), None) for at in (1, 2))
    yield from _said(value.elts[0], what, fix, texts)


def _words(node: ast.expr) -> list[str]:
    """Return the codes that an expression can be."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value] if _CODE.fullmatch(node.value) else []
    if isinstance(node, ast.IfExp):
        return _words(node.body) + _words(node.orelse)
    return HOLES.get(_text(node, {}), []) if isinstance(node, ast.JoinedStr) else []


def _text(node: ast.expr | None, texts: Texts) -> str:
    """Return the text of an expression, with ``…`` for what is not known here."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
        return "".join(part for part in parts if isinstance(part, str))
    if isinstance(node, ast.Name) and node.id in texts:
        inner = {name: value for name, value in texts.items() if name != node.id}
        return _text(texts[node.id], inner)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left, texts) + _text(node.right, texts)
    if isinstance(node, ast.IfExp):
        return _text(node.body, texts)
    return "" if node is None else "…"


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
