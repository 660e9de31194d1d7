"""PURE: the work and the hosts of a real lab, as the two files of a rehearsal."""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby

import msgspec
from msgspec.structs import replace

from tshrag_common.inventory import AgentFacts
from tshrag_common.lease_requests import EndedLease
from tshrag_common.work import WorkDut, WorkHost, WorkLine
from tshrag_common.work_requests import WorkRow
from tshrag_controller.core.policy import Policy


def compacted(rows: Iterable[WorkRow], leases: Iterable[WorkLine] = ()) -> list[WorkLine]:
    """Return the jobs that ran, numbered anew in each run, and leases; the first comes at 0 s.

    What came after a job that did not run comes after what that one came after.
    """
    found: list[WorkLine] = []
    for _, each in groupby(rows, lambda row: row.line.run):
        lines = _of_run(list(each))
        found += lines if any(line.what == "job" for line in lines) else []
    found += leases
    first = min((line.at for line in found), default=0.0)
    return [replace(line, at=round(line.at - first, 6)) for line in found]


def lease_line(lease: EndedLease, since: int) -> WorkLine:
    """Return the lease that a person had, as a line of work; its wait in line is not known."""
    org, _, name = lease.owner.partition("/")
    return WorkLine(
        at=(lease.since - since) / 1e6,
        seconds=(lease.ended_at - lease.since) / 1e6,
        what="lease",
        dut=lease.dut,
        org=org,
        name=name,
    )


def _of_run(rows: Sequence[WorkRow]) -> list[WorkLine]:
    numbers: dict[int, int] = {}
    befores: dict[int, tuple[int, ...]] = {}  # old serial -> new serials that it stands for
    gangs: dict[int, list[int]] = {}
    made: list[WorkLine] = []
    for row in rows:
        line = row.line
        after = {new for old in line.after for new in befores.get(old, ())}
        if not row.ran:
            befores[line.serial] = tuple(after)
            continue
        numbers[line.serial] = serial = len(made) + 1
        befores[line.serial] = (serial,)
        if line.gang:
            gangs.setdefault(line.gang, []).append(serial)
        made.append(replace(line, serial=serial, after=tuple(sorted(after)), gang=0))
    for members in gangs.values():
        for serial in members if len(members) > 1 else ():
            made[serial - 1] = replace(made[serial - 1], gang=members[0])
    return made


def work_text(lines: Iterable[WorkLine]) -> str:
    """Return WORK.jsonl."""
    return "".join(f"{msgspec.json.encode(line).decode()}\n" for line in lines)


def lab_text(hosts: Sequence[AgentFacts], policy: Policy) -> str:
    """Return LAB.toml: these hosts with their boards, scheduled by this policy."""
    parts = [_table("[[host]]", _plain(_host(facts)), facts) for facts in hosts]
    weights = _plain(policy)
    parts += [_table("[scheduler]", weights, None)] if weights else []
    return "\n".join(parts)


def policy_of(raw: bytes) -> Policy:
    """Return the policy that a lab has answered; words of a newer one are left out."""
    return msgspec.json.decode(raw, type=Policy)


def _host(facts: AgentFacts) -> WorkHost:
    return WorkHost(
        name=facts.agent, slots=facts.slots, cores=facts.cores, memory_bytes=facts.memory_bytes,
        os=facts.os, arch=facts.arch, labels=facts.labels, tools=facts.tools,
        resources=facts.resources,
    )  # fmt: skip


def _plain(made: msgspec.Struct) -> dict[str, object]:
    return dict(msgspec.to_builtins(made))


def _table(head: str, plain: Mapping[str, object], facts: AgentFacts | None) -> str:
    lines = [head, *(f"{_key(name)} = {_value(value)}" for name, value in plain.items())]
    for dut in facts.duts if facts is not None else ():
        ways = tuple(each for each in dut.transports if each != "host")
        board = WorkDut(name=dut.id, kind=dut.kind, labels=dut.labels, transports=ways, can=dut.can)
        lines.append("[[host.dut]]")
        lines += [f"{_key(name)} = {_value(value)}" for name, value in _plain(board).items()]
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    return name if name.replace("_", "").isalnum() and name.isascii() else _value(name)


def _value(value: object) -> str:
    """Return a value of TOML. Text as JSON writes it, which TOML reads alike but for DEL."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(str(name))} = {_value(each)}" for name, each in value.items())
        return f"{{{inner}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_value, value))}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
