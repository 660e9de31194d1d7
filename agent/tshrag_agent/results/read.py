"""Reads the results that a load declares, when its job has ended."""

import asyncio
import os
import stat
from pathlib import Path

from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.results.forms import PREFIXES, BadResult, parse
from tshrag_common.clock import Clock
from tshrag_common.errors import LabError
from tshrag_common.jobs import JobSpec
from tshrag_common.results import STDOUT

MOST_BYTES = 16 << 20


async def read_results(
    spec: JobSpec, folder: Path, stdout: Path, gate: MetricGate, clock: Clock
) -> None:
    """Offer the numbers of each result to the gate; what cannot be read is refused by its prefix.

    So a criterion on a metric of that tool is in error, with the reason.
    """
    for result in spec.results:
        tool = PREFIXES[result.parse]
        prefix = result.prefix or (f"{spec.namespace}.{tool}" if spec.namespace else tool)
        path = stdout if result.file == STDOUT else folder / result.file
        try:
            data = await asyncio.to_thread(_read, path, folder, result.file)
            numbers = await asyncio.to_thread(parse, result.parse, data)
        except LabError as error:
            gate.refuse(prefix, error.line)
            continue
        now = clock.now()
        for number in numbers:
            gate.offer(f"{prefix}.{number.key}", number.value, number.unit, None, now_us=now)


def _read(path: Path, folder: Path, name: str) -> bytes:
    """Return a file of the job: a plain one, bounded, and no way out of its directory."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        why = (error.strerror or "not readable").lower()
        raise BadResult(name, why, "let the load write it in its directory") from None
    try:
        opened = Path(f"/proc/self/fd/{descriptor}").readlink()
        if not opened.is_relative_to(folder.resolve()):  # a folder on the way may be a link
            raise BadResult(name, "lies outside the job directory")
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise BadResult(name, "is no plain file")
        if status.st_size > MOST_BYTES:
            raise BadResult(name, f"{status.st_size} > {MOST_BYTES} bytes")
        with os.fdopen(os.dup(descriptor), "rb") as file:
            return file.read(MOST_BYTES)
    finally:
        os.close(descriptor)
