"""``jobs/<run>/JID_001/`` of an attempt: complete before the start; the agent's records lie
elsewhere.

A second attempt of a job on the same host gets ``JID_001.2``, so that nothing of the first one is
mistaken for its own.
"""

import errno
import os
import re
import shutil
import tempfile
from pathlib import Path

import msgspec

from tshrag_common.commands import StartAttempt
from tshrag_common.ids import JobId, RunId, run_of, serial_name
from tshrag_common.jobs import JobSpec

_RUN_DIR = re.compile(r"run-[0-9a-z]{26}")


class Workdir(msgspec.Struct, frozen=True, kw_only=True):
    """The paths of one attempt."""

    run_dir: Path
    path: Path

    @property
    def params(self) -> Path:
        return self.path / "input_params.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics"

    @property
    def artifacts(self) -> Path:
        return self.path / "artifacts"

    @property
    def frozen(self) -> Path:
        """Return where the answers of a board lie that is kept as it is."""
        return self.artifacts / "freeze"

    @property
    def socket(self) -> Path:
        return self.path / "metrics.sock"

    @property
    def stdout(self) -> Path:
        return self.path / "stdout.log"

    @property
    def stderr(self) -> Path:
        return self.path / "stderr.log"

    @property
    def load_bin(self) -> Path:
        return self.path / "load_bin"


def place(store: Path, start: StartAttempt) -> Workdir:
    """Return where an attempt belongs; nothing is made."""
    return place_of(store, start.job, start.attempt)


def place_of(store: Path, job: JobId, attempt: int) -> Workdir:
    """Return where an attempt (from 1) of a job belongs, or belonged; nothing is made."""
    run_dir = store / "jobs" / run_of(job)
    name = serial_name(job)
    if attempt > 1:
        name += f".{attempt}"
    return Workdir(run_dir=run_dir, path=run_dir / name)


def free_bytes(folder: Path) -> int:
    """Return how much room there is for jobs; where no job has been there is nothing to fill."""
    try:
        return shutil.disk_usage(folder).free
    except FileNotFoundError:
        return 1 << 62
    except OSError:
        return 0


def has_room(folder: Path, size: int) -> bool:
    """Tell whether a job could write here: a quota shows itself only to who writes. Blocks.

    Other troubles of a folder are told by whoever meets them.
    """
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            file.write(bytes(size))
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return True


def make(workdir: Workdir, spec: JobSpec) -> None:
    """Make the directories and the params; what an earlier try has left is replaced."""
    path = workdir.path
    try:
        path.mkdir()
    except FileNotFoundError:
        path.mkdir(parents=True)
    except FileExistsError:
        shutil.rmtree(path)
        path.mkdir()
    workdir.metrics.mkdir()
    workdir.artifacts.mkdir()
    workdir.params.write_bytes(msgspec.json.encode(spec.params))


def link_entry(workdir: Workdir, entry: Path) -> None:
    """Make the entry of a load executable, and ``load_bin`` lead to it."""
    entry.chmod(entry.stat().st_mode | 0o755)
    workdir.load_bin.unlink(missing_ok=True)
    workdir.load_bin.symlink_to(os.path.relpath(entry, workdir.path))


def expire(store: Path, keep: set[RunId], older_than_s: float, now_s: float) -> list[str]:
    """Remove the directories of runs that nobody works in and that are old; return their names."""
    removed: list[str] = []
    jobs = store / "jobs"
    for folder in jobs.iterdir() if jobs.is_dir() else ():
        if not _RUN_DIR.fullmatch(folder.name) or RunId(folder.name) in keep:
            continue
        if now_s - folder.stat().st_mtime > older_than_s:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
    return removed
