"""What the agent says of its host: processor, memory, tools, DUTs."""

import os
import platform
import shutil
import socket
from collections.abc import Mapping

import msgspec

from tshrag_agent.settings import AgentSettings
from tshrag_common.ids import AgentId, DutId
from tshrag_common.inventory import AgentFacts

TOOLS = (
    "adb", "bash", "curl", "docker", "fio", "flashrom", "gcc", "git", "iperf3", "make", "node",
    "openocd", "perf", "perl", "podman", "pytest", "python3", "qemu-system-x86_64", "rsync",
    "ruby", "ssh", "stress-ng", "tcpdump", "uhubctl", "wget",
)  # fmt: skip
"""Programs whose presence is told; a load names in its manifest what it needs."""

_ARCH = {"amd64": "x86_64", "arm64": "aarch64"}


def with_carried(
    facts: AgentFacts, carried: Mapping[DutId, str], owed: Mapping[DutId, str]
) -> AgentFacts:
    """Return the facts with the setup that each DUT carries, and the one it has to undo."""
    duts = tuple(
        msgspec.structs.replace(dut, carries=_one(carried, dut.id), owes=_one(owed, dut.id))
        for dut in facts.duts
    )
    return msgspec.structs.replace(facts, duts=duts)


def _one(setups: Mapping[DutId, str], dut: DutId) -> tuple[str, ...]:
    return (setups[dut],) if dut in setups else ()


def gather(agent: AgentId, settings: AgentSettings, boot: str, version: str) -> AgentFacts:
    """Look at this host; takes a few milliseconds and blocks for them."""
    machine = platform.machine().lower()
    wanted = sorted({*TOOLS, *settings.agent.tools})
    return AgentFacts(
        agent=agent,
        boot=boot,
        version=version,
        slots=settings.slots,
        os=platform.system().lower(),
        arch=_ARCH.get(machine, machine),
        labels=settings.agent.labels,
        duts=tuple(dut.described for dut in settings.dut),
        tools=tuple(tool for tool in wanted if shutil.which(tool)),
        cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        pid=os.getpid(),
        hostname=socket.gethostname(),
        resources=settings.resources,
        drills=settings.agent.drills,
    )
