"""A test as `qgjob` names it -> a profile: one job with a load of that file or folder."""

import json
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tshrag_common.errors import Refused
from tshrag_common.manifest import FILE, IMPLIED
from tshrag_controller.cli.packing import Draft, read_draft

RUNNERS: Mapping[str, str] = {
    ".py": "python3", ".sh": "sh", ".bash": "bash", ".js": "node", ".mjs": "node",
    ".cjs": "node", ".rb": "ruby", ".pl": "perl",
}  # fmt: skip
"""By the ending of a file that cannot be executed itself; else `--runner` says it."""
MOST_BYTES = 256 << 20


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What `qgjob submit` was given."""

    org: str
    app_version: str
    test: str
    target: str
    runner: str = ""
    setup: str = ""
    timeout: str = ""
    metadata: dict[str, str] = {}


def draft_of(asked: Asked, folder: Path) -> Draft:
    """Return the profile of the test, made in `folder`; raise Refused where it cannot be run."""
    path = Path(asked.test)
    if not path.exists():
        raise Refused(asked.test, "there is no such file or folder", code="file")
    load = folder / "load"
    if path.is_dir():
        known = any((path / name).exists() for name in (FILE, *IMPLIED))
        if not known and not asked.runner:
            fix = (
                f"add a {FILE} or an executable run.sh to it, or say --runner 'npx appwright test'"
            )
            raise Refused(asked.test, "nothing says how this folder is run", fix, code="runner")
        if not asked.runner:
            load = path.absolute()
        else:
            shutil.copytree(path, load, symlinks=True)
            _start_by(load, asked.runner, "")
    else:
        _file(path, load, asked.runner)
    document = folder / "profile.json"
    document.write_text(json.dumps(_profile(asked, load)))
    return read_draft(str(document))


def _file(path: Path, load: Path, runner: str) -> None:
    if path.stat().st_size > MOST_BYTES:
        raise Refused(str(path), f"is larger than {MOST_BYTES} bytes", code="file")
    executable = bool(path.stat().st_mode & 0o111)
    runner = runner or ("" if executable else RUNNERS.get(path.suffix, ""))
    if not runner and not executable:
        fix = f"make it executable, or say --runner; known endings: {', '.join(RUNNERS)}"
        raise Refused(str(path), "nothing says how it is run", fix, code="runner")
    load.mkdir()
    shutil.copy2(path, load / path.name)
    _start_by(load, runner, path.name)


def _start_by(load: Path, runner: str, name: str) -> None:
    """Write a run.sh, and the manifest that names it."""
    program = f"./{shlex.quote(name)}" if name else ""
    script = load / "run.sh"
    script.write_text(f'#!/bin/sh\ncd "$(dirname "$0")" || exit 1\nexec {runner} {program} "$@"\n')
    script.chmod(0o755)
    (load / FILE).write_text('name = "test"\nversion = "0"\n[[platforms]]\nentry = "run.sh"\n')


def _profile(asked: Asked, load: Path) -> dict[str, object]:
    words = {
        "app_version_id": asked.app_version,
        "test_path": asked.test,
        "target": asked.target,
        **asked.metadata,
    }
    env = {
        "APP_VERSION_ID": asked.app_version,
        "ORG_ID": asked.org,
        "TARGET": asked.target,
        "TEST_PATH": asked.test,
    }
    step: dict[str, object] = {"load": "test", "target": "target"}
    if asked.timeout:
        step["timeout"] = asked.timeout
    profile: dict[str, object] = {
        "name": Path(asked.test).name[:60] or "test",
        "loads": {"test": {"path": str(load)}},
        "targets": {"target": {"kind": asked.target, "hold": "job"}},
        "schedule": {"sequence": [step]},
        "labels": words,
        "env": env,
    }
    if asked.setup:
        profile["setup"] = {"command": ["sh", "-c", asked.setup]}
    return profile
