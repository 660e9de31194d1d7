"""What a lab owns: hosts with their agents, and DUTs with the ways to them.

Observed state only. What an operator wants of a thing (cordon, maintenance) is kept apart.
"""

from typing import Literal

import msgspec

from tshrag_common.ids import AgentId, DutId

Runtime = Literal["host", "ssh", "serial", "local"]
"""Where a job runs: on the lab host, or on a DUT over SSH, its console, or a local DUT."""


class Dut(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A device under test, as its agent describes it.

    A *shared* DUT is reached by several agents; an owned one, the default, by its agent only.
    ``carries`` are digests of setups that are in place.
    """

    id: DutId
    kind: str
    transports: tuple[Runtime, ...]
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    os: str = "linux"
    arch: str = ""
    shared: bool = False
    faulty: str = ""  # the reason; empty when it is well
    carries: tuple[str, ...] = ()
    can: tuple[str, ...] = ()  # power, console, bootloader, flash
    owes: tuple[str, ...] = ()  # setups, in place or spoilt, whose teardown is still to be done


class AgentFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an agent says of its host at hello, and again whenever it changes."""

    agent: AgentId
    boot: str  # a new one each time that the agent's process starts
    version: str
    slots: int
    os: str = "linux"
    arch: str = "x86_64"
    labels: dict[str, str] = msgspec.field(default_factory=dict[str, str])
    duts: tuple[Dut, ...] = ()
    tools: tuple[str, ...] = ()
    cores: int = 1
    memory_bytes: int = 0
    pid: int = 0
    hostname: str = ""
    resources: dict[str, float] = msgspec.field(default_factory=dict[str, float])
    drills: bool = False  # its settings allow that it is killed or cut off on purpose

    @property
    def capacity(self) -> dict[str, float]:
        """Return how much of each resource the host has; what it says itself goes first."""
        return {"cpus": self.cores, "memory": self.memory_bytes, **self.resources}
