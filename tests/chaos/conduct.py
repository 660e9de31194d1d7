"""Lets the chosen faults happen one after the other in one lab; then the checker has its say.

`in_chapters` does so in one lab after the other, and keeps each repetition as it comes.
"""

import asyncio
import datetime
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.chaos import (
    canary,
    faults_agent,
    faults_bus,
    faults_controller,
    faults_disk,
    faults_dut,
    faults_full,
    faults_gang,
    faults_keys,
    faults_link,
    faults_load,
    faults_log,
    faults_serial,
    faults_shared,
    faults_slow,
    faults_streams,
    faults_stuck,
    faults_upgrade,
    faults_upload,
    kept,
    load,
)
from tests.chaos.checker import check
from tests.chaos.faults import Fault
from tests.chaos.images import can_mount
from tests.chaos.kept import Tried
from tests.chaos.lab import ROOT, ChaosLab, a_chaos_lab
from tests.chaos.net import can_partition
from tests.chaos.outcome import Once, Row, markdown, row
from tests.chaos.recorded import Reader, Recorded
from tshrag_common import history

FAULTS: tuple[Fault, ...] = (
    *faults_agent.FAULTS,
    *faults_bus.FAULTS,
    *faults_controller.FAULTS,
    *faults_disk.FAULTS,
    *faults_dut.FAULTS,
    *faults_full.FAULTS,
    *faults_gang.FAULTS,
    *faults_keys.FAULTS,
    *faults_link.FAULTS,
    *faults_load.FAULTS,
    *faults_log.FAULTS,
    *faults_serial.FAULTS,
    *faults_shared.FAULTS,
    *faults_slow.FAULTS,
    *faults_streams.FAULTS,
    *faults_stuck.FAULTS,
    *faults_upgrade.FAULTS,
    *faults_upload.FAULTS,
)


CHECKED = "I1 to I27"
NO_LOAD = "the repetition does not count"
NOT_WELL = "a minute after it not every agent was online"
MOST_S = 1500.0
"""The longest fault lasts ten minutes; what takes longer than this hangs."""
AT_ONCE = 12
"""So many repetitions have a lab, and a history, of their own."""


async def conduct(
    which: str, names: Sequence[str], repeat: int | None, out: Path | None, into: Path | None
) -> tuple[bool, set[str]]:
    """Tell whether a bar was missed, and which invariants do not hold.

    `into`: keep each repetition in this file.
    """
    began = time.monotonic()
    history.be("client")
    reasons = {
        "partitions": can_partition(),
        "disks": can_mount(),
        "hangs": faults_stuck.can_hang(),
        "history": faults_upgrade.can_go_back(),
    }
    chosen = [(fault, _times(fault, which, names, repeat)) for fault in FAULTS]
    chosen = [(fault, times) for fault, times in chosen if times]
    rows, runs = await _all(chosen, reasons, into)
    recorded = await asyncio.to_thread(_recorded)
    once = _checked(recorded)
    rows.append(row("checker", f"{CHECKED} over {once.counts['lines']} lines", [once], ()))
    if into is not None:
        await asyncio.to_thread(kept.keep, into, "checker", CHECKED, once)
    print(markdown(rows))
    took_s = time.monotonic() - began
    print(_summary(rows, took_s, len(runs), recorded))
    if out is not None:
        _write(out, which, rows, took_s)
    return _is_missed(rows), {broken.partition(":")[0] for broken in once.broken}


def _is_missed(rows: Sequence[Row]) -> bool:
    return any(each.repetitions and not each.is_met for each in rows)


def _summary(rows: Sequence[Row], took_s: float, runs: int, labs: Sequence[Recorded]) -> str:
    """Return what one wants to know first: how many bars were met, under how much load."""
    tried = [each for each in rows if each.repetitions]
    met = sum(each.is_met for each in tried)
    loaded = [each for each in tried if each.running]
    load = "no load was on"
    if loaded:
        least, rate = min(each.running for each in loaded), min(each.per_s for each in loaded)
        load = f"at least {least} jobs ran and {rate:.0f} samples/s came when a fault did"
    said = (
        f"{met} of {len(tried)} rows met their bars, {len(rows) - len(tried)} were not run; {load}"
    )
    attempts = sum(1 for recorded in labs for _ in recorded.of("assigned"))
    lines = sum(len(recorded.lines) for recorded in labs)
    told = f"{runs} runs, {attempts} attempts, {lines} lines of history"
    return f"{said}\n{took_s:.0f} s, {told}"


def _recorded() -> list[Recorded]:
    return Reader(Path(os.environ[history.HISTORY])).labs()


def _times(fault: Fault, which: str, names: Sequence[str], repeat: int | None) -> int:
    if names:
        return (repeat or max(1, fault.quick)) if _is_named(fault, names) else 0
    times: int = getattr(fault, which)
    return min(times, repeat) if repeat else times


async def _all(
    chosen: Sequence[tuple[Fault, int]], reasons: dict[str, str], into: Path | None
) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    runs: list[str] = []
    async with a_chaos_lab(not reasons["partitions"]) as lab:
        for fault, times in chosen:
            needs = [reasons[need] for need in reasons if getattr(fault, need)]
            reason = next((each for each in needs if each), "")
            if reason:
                rows.append(row(fault.name, fault.what, [], fault.bars, reason))
                _keep(into, fault, Once(), reason)
                continue
            all_of = []
            for _ in range(times):
                all_of.append(await _once(lab, fault))
                if NO_LOAD not in all_of[-1].broken:  # else it does not count
                    _keep(into, fault, all_of[-1])
            rows.append(row(fault.name, fault.what, all_of, fault.bars))
            runs += [run for once in all_of for run in once.runs]
            print(markdown(rows[-1:]).splitlines()[-1], flush=True)
            if into is not None and {NOT_WELL, NO_LOAD} & set(all_of[-1].broken):
                break  # what comes later is tried in another lab
        await _drained(lab)
        state = lab.processes.state
        places = (lab.logs, state / "store", state / "agents", lab.history_folder)
        await asyncio.to_thread(canary.search, state / "keys.json", *places)
    return rows, runs


def _keep(into: Path | None, fault: Fault, once: Once, note: str = "") -> None:
    if into is not None:
        kept.keep(into, fault.name, fault.what, once, note)


async def _once(lab: ChaosLab, fault: Fault) -> Once:
    """Let one fault happen; what goes wrong in it is a broken bar, not the end of all."""
    try:
        async with asyncio.timeout(MOST_S):
            once = await fault.repeat(lab)
    except load.NoLoad as error:
        once = Once(broken=(str(error), NO_LOAD))
    except Exception as error:  # the others must be tried all the same; this one is told
        once = Once(broken=(f"{type(error).__name__}: {error}"[:300],))
    try:
        await lab.online()
    except AssertionError:
        once = msgspec.structs.replace(once, broken=(*once.broken, NOT_WELL))
    return once


async def _drained(lab: ChaosLab, within_s: float = 30.0) -> None:
    """Wait until the spools are confirmed: what is told until then is not lost."""
    ends = time.monotonic() + within_s
    while time.monotonic() < ends:
        broken = [each for recorded in lab.reader.labs() for each in check(recorded)]
        if not [each for each in broken if each.rule in ("I10", "I1")]:
            return
        await asyncio.sleep(0.5)


def _checked(labs: Sequence[Recorded]) -> Once:
    broken = tuple(str(each) for recorded in labs for each in check(recorded))
    return Once(broken=broken, counts={"lines": sum(len(each.lines) for each in labs)})


def _write(out: Path, which: str, rows: Sequence[Row], took_s: float) -> None:
    result = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": kept.build(),
        "command": f"python -m tests.chaos.run --set {which}",
        "took_s": round(took_s, 1),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.release()}",
        "load": round(os.getloadavg()[0], 1),
        "rows": [msgspec.to_builtins(each) for each in rows],
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "chaos.json").write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1))
    (out / "chaos.md").write_text(markdown(rows))


def in_chapters(which: str, names: Sequence[str], repeat: int | None, into: Path) -> int:
    """Try what `into` does not hold yet, a few repetitions in a lab; draw its table each time."""
    wanted = [
        Tried(fault.name, fault.what, times, fault.bars)
        for fault in FAULTS
        if (times := _in_all(fault, which, names, repeat))
    ]
    while True:
        found = kept.read(into)
        rows = kept.rows([*wanted, Tried("checker", CHECKED, 0)], found)
        into.with_suffix(".md").write_text(markdown(rows))
        left = kept.missing(wanted, found)
        if not left:
            print(markdown(rows))
            return int(_is_missed(rows))
        some = list(dict.fromkeys(left))[:AT_ONCE]
        print(f"{len(left)} repetitions are left, now {len(some)} of them", flush=True)
        argv = [sys.executable, "-m", "tests.chaos.run", "--repeat", "1", "--into", str(into)]
        subprocess.run([*argv, "--chapter", *some], cwd=ROOT, check=False)
        if len(kept.read(into)) == len(found):
            print("none of them came to its end: a lab cannot be had here")
            return 1


def _in_all(fault: Fault, which: str, names: Sequence[str], repeat: int | None) -> int:
    """Return how often a fault is to be tried in all: of its set's count, `repeat` at most."""
    times: int = getattr(fault, which)
    if names and not _is_named(fault, names):
        return 0
    return min(times, repeat) if repeat else times


def _is_named(fault: Fault, names: Sequence[str]) -> bool:
    return fault.name in names or f"{fault.name} {fault.what}" in names
