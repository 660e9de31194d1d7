"""PURE: LAB.toml and WORK.jsonl as the scheduler takes them; every problem named with its line."""

from collections.abc import Iterator
from itertools import count

import msgspec
from msgspec.structs import replace

from tshrag_common.documents import Document, read_document
from tshrag_common.errors import Invalid, Problem, did_you_mean
from tshrag_common.findings import MAX_PROBLEMS, Findings
from tshrag_common.ids import AgentId, DutId
from tshrag_common.inventory import AgentFacts, Dut
from tshrag_common.jobs import MAX_JOBS, Group, JobSpec, Need, Plan, PlannedJob, Target
from tshrag_common.strict import convert
from tshrag_common.work import MOST_LINES, WorkDut, WorkFaults, WorkHost, WorkLine
from tshrag_controller.core.policy import Policy


class LabFile(msgspec.Struct, frozen=True, kw_only=True):
    """LAB.toml: hosts with their boards, and the table ``[scheduler]`` of controller.toml."""

    host: tuple[WorkHost, ...] = ()
    scheduler: Policy = Policy()
    faults: WorkFaults = WorkFaults()


class WorkRun(msgspec.Struct, frozen=True):
    """A run to be submitted ``at`` that many seconds: its lines in the order of its serials."""

    at: float
    lines: tuple[WorkLine, ...]

    @property
    def plan(self) -> Plan:
        specs: dict[bytes, int] = {}
        made: list[JobSpec] = []
        jobs: list[PlannedJob] = []
        for line in self.lines:
            spec = _spec(line)
            key = msgspec.msgpack.encode(spec)
            if key not in specs:
                specs[key] = len(made)
                made.append(spec)
            jobs.append(PlannedJob(line.serial, line.name, specs[key], line.after, gang=line.gang))
        return Plan(specs=tuple(made), jobs=tuple(jobs))


def read_lab(raw: bytes, name: str) -> LabFile:
    """Return the lab in `raw`, a file called `name`.

    Raises:
        Invalid: it is no such file, has no host, or two boards of one name.

    """
    document = read_document(raw, name, kind="lab")
    lab = convert(document.data, LabFile, Findings(document))
    seen: set[str] = set()
    twice: list[str] = []
    for facts in hosts_of(lab):
        for each in (facts.agent, *(dut.id for dut in facts.duts)):
            twice += [each] if each in seen else []
            seen.add(each)
    if not lab.host:
        raise Invalid([Problem(code="missing", where="host", what="no [[host]]", file=name)])
    if twice:
        what = f"{twice[0]!r} is there twice"
        fix = "names of hosts and boards differ, also those made by count"
        raise Invalid([Problem(code="duplicate", where="host", what=what, fix=fix, file=name)])
    for place in sorted(lab.faults.at.keys() - seen):
        fix = did_you_mean(place, seen) or "hosts and boards made by count end in -1, -2, ..."
        what = f"there is no host or board {place!r}"
        raise Invalid([Problem(code="unknown", where="faults.at", what=what, fix=fix, file=name)])
    return lab


def hosts_of(lab: LabFile) -> Iterator[AgentFacts]:
    """Yield every host as its agent would describe it."""
    for host in lab.host:
        for name, suffix in _names(host.name, host.count):
            duts = tuple(dut for each in host.dut for dut in _duts(each, suffix))
            yield AgentFacts(
                agent=AgentId(name), boot="rehearsal", version="0", slots=host.slots, os=host.os,
                arch=host.arch, labels=host.labels, duts=duts, tools=host.tools,
                cores=host.cores, memory_bytes=host.memory_bytes, resources=host.resources,
            )  # fmt: skip


def _duts(dut: WorkDut, suffix: str) -> Iterator[Dut]:
    for name, _ in _names(f"{dut.name}{suffix}", dut.count):
        yield Dut(
            id=DutId(name), kind=dut.kind, transports=dut.transports, labels=dut.labels,
            can=dut.can,
        )  # fmt: skip


def _names(name: str, number: int) -> Iterator[tuple[str, str]]:
    """Yield (name, suffix) of each of `number` equal things; a single one keeps its name."""
    if number == 1:
        yield name, ""
        return
    for each in range(1, number + 1):
        yield f"{name}-{each}", f"-{each}"


def read_work(raw: bytes, name: str) -> list[WorkRun]:
    """Return the runs in `raw`, a file of lines called `name`, in the order of their submission.

    Raises:
        Invalid: with every line that is no job, and every run whose jobs do not fit together.

    """
    problems: list[Problem] = []
    runs: dict[str, list[tuple[int, WorkLine]]] = {}
    alone: list[WorkRun] = []
    jobs = 0
    for number, text in enumerate(raw.splitlines(), 1):
        if not text.strip() or len(problems) >= MAX_PROBLEMS:
            continue
        try:
            line = _line(text, name)
        except Invalid as error:
            problems += [replace(each, line=number, column=0) for each in error.problems]
            continue
        jobs += line.count
        if line.run:
            runs.setdefault(line.run, []).append((number, line))
        else:
            only = replace(line, serial=1, after=(), gang=0)
            alone += [WorkRun(line.at, (only,))] * line.count
    if jobs > MOST_LINES:
        what = f"{jobs} jobs, the limit is {MOST_LINES}"
        problems.append(Problem(code="range", where="", what=what, file=name))
    made = [_run(lines, name, problems) for lines in runs.values()]
    if problems:
        raise Invalid(problems)
    if not jobs:
        fix = 'write one JSON object a line: {"at": 0, "seconds": 60, "kind": "rpi4"}'
        raise Invalid([Problem(code="missing", where="", what="no job", fix=fix, file=name)])
    return sorted([*alone, *made], key=lambda run: run.at)


def _line(text: bytes, name: str) -> WorkLine:
    try:
        data = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Invalid([Problem(code="json_syntax", where="", what=str(error), file=name)]) from None
    findings = Findings(Document(file=name, format="json", data=data, lines={}))
    if not isinstance(data, dict):
        findings.add("type", (), "expected a mapping, one job a line")
    return convert(data, WorkLine, findings, lambda line: _check(line, findings))


def _check(line: WorkLine, findings: Findings) -> None:
    wants_dut = bool(line.kind) or line.need.wants_dut
    if line.kind and line.need != Need():
        findings.add("kind", ("kind",), "is short for a need, which is there too", "keep one")
    if (line.group or line.need.group) and not wants_dut:
        findings.add("group", ("group",), "a setup is of a DUT", "say kind, or need.target")
    if line.group and line.need.group:
        findings.add("group", ("group",), "is short for need.group, which is there too", "keep one")
    _check_lease(line, findings)
    if line.run and line.count > 1:
        findings.add("count", ("count",), "jobs of a run are written one a line", "leave it out")
    if line.run and not line.serial:
        findings.add("serial", ("serial",), "a job of a run has a number", "say serial: 1, 2, …")


def _check_lease(line: WorkLine, findings: Findings) -> None:
    if line.what == "lease" and not (line.dut or line.kind):
        findings.add("lease", ("what",), "a lease is of a board", "say dut, or kind")
    if line.what == "lease" and line.run:
        findings.add("lease", ("run",), "a lease belongs to no run", "leave it out")
    if line.reserved and not (line.what == "lease" and line.dut):
        findings.add("lease", ("reserved",), "is of a lease of one board", "say what and dut")


def _run(lines: list[tuple[int, WorkLine]], name: str, problems: list[Problem]) -> WorkRun:
    """Return the lines of one run by serial; note what does not fit together."""
    lines.sort(key=lambda each: each[1].serial)
    for (number, line), expected in zip(lines, count(1), strict=False):
        wrong = ""
        if line.serial != expected:
            wrong = (
                f"run {line.run!r} has no job {expected}"
                if line.serial > expected
                else (f"run {line.run!r} has two jobs {line.serial}")
            )
        elif any(not 0 < each < line.serial for each in line.after):
            wrong = "after names jobs of its run with smaller serials only"
        elif line.gang > line.serial:
            wrong = "gang is the serial of the first of those that start together"
        elif line.serial > MAX_JOBS:
            wrong = f"a run has {MAX_JOBS} jobs at most"
        if wrong:
            problems.append(
                Problem(code="serial", where="serial", what=wrong, line=number, file=name)
            )
            break
    return WorkRun(min(line.at for _, line in lines), tuple(line for _, line in lines))


def _spec(line: WorkLine) -> JobSpec:
    """Return what the scheduler sees of a job; nothing else of it matters here."""
    if line.what == "sleep":
        return JobSpec(kind="sleep", sleep_s=line.seconds)
    need = line.need
    if line.kind:
        target = Target(runtime="dut", kind=line.kind, hold="job")
        need = Need(target=target, role=line.kind)
    if line.group:
        digest = f"{line.org} {line.group} {line.setup_s:g}"
        need = replace(need, group=Group(key=line.group, digest=digest))
    limit_s = 2 * (line.seconds + line.setup_s) + 3600.0
    return JobSpec(
        kind="command",
        argv=(line.name,),
        need=need,
        timeout_s=limit_s,
        on_fail="continue",
        preemptible=line.preemptible,
    )
