"""What ``tshrag-agent check`` prints: what was understood, and how every DUT answers."""

from tshrag_agent.duts import Duts
from tshrag_agent.settings import AgentSettings, DutTable
from tshrag_common.bus.connection import connect
from tshrag_common.errors import LabError
from tshrag_common.ids import DutId
from tshrag_common.inventory import Runtime

_PROBE_S = 20.0
_CONNECT_S = 5.0

Line = tuple[str, bool]
"""What to print, and whether it is well."""


async def check_lines(settings: AgentSettings) -> list[Line]:
    """Return the lines; probes take a while, one DUT after the other."""
    agent = settings.agent
    lines: list[Line] = [
        (f"agent   {agent.name or '(named by its bundle)'}: {settings.slots} slots", True),
        (f"store   {settings.store}", True),
        (f"cache   {settings.cache} (at most {agent.cache_bytes >> 20} MiB)", True),
    ]
    if agent.labels:
        lines.append(("labels  " + ", ".join(f"{k}={v}" for k, v in agent.labels.items()), True))
    lines.append(await _bus_line(settings))
    duts = Duts(settings.dut)
    try:
        for table in settings.dut:
            for way in table.transports:
                lines.append(await _dut_line(duts, table, way))
    finally:
        await duts.close()
    return lines


async def _bus_line(settings: AgentSettings) -> Line:
    try:
        bundle = settings.bundle()
        bus = await connect(
            bundle.url,
            name=bundle.name,
            credentials=bundle.creds or None,
            ca=bundle.ca or None,
            within_s=_CONNECT_S,
        )
        said = f"nats    {bundle.url}: server {bus.server_info.version}"
        await bus.close()
    except LabError as error:
        return f"nats    {error.line}", False
    return said, True


async def _dut_line(duts: Duts, table: DutTable, way: Runtime) -> Line:
    name = f"dut     {table.id} ({table.kind}) over {way}"
    try:
        async with duts.attended(DutId(table.id)):
            transport = duts.transport(DutId(table.id), way)
            probe = await transport.probe(timeout_s=_PROBE_S)
    except LabError as error:
        return f"{name}: {error.line}", False
    guard = "guarded" if probe.guarded else "NOT guarded: " + ", ".join(probe.lacks)
    return f"{name}: {probe.os}/{probe.arch}, user {probe.user or '?'}, {guard}", True
