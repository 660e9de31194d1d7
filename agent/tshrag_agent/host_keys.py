"""``tshrag-agent host-key``: what is pinned for a DUT, what answers, and how to pin that."""

import asyncio
from pathlib import Path

from tshrag_agent.settings import AgentSettings
from tshrag_agent.transport.host_key import pinned_keys
from tshrag_agent.transport.open import answering_key
from tshrag_agent.transport.ways import SshWay
from tshrag_common.errors import NotFound, Refused
from tshrag_common.ids import DutId


async def host_key_lines(settings: AgentSettings, dut: str, pin: bool) -> tuple[list[str], bool]:
    """Return the lines to print, and whether the key that answers is a pinned one.

    Raises:
        NotFound: there is no such DUT.
        Refused: it is not reached by SSH, or its key is no file that could be written.
        TransportFailed: nothing answers.

    """
    way = _way(settings, dut)
    pinned = pinned_keys(way)
    key, fingerprint = await answering_key(DutId(dut), way)
    lines = [f"pinned   {each}" for each in pinned]
    lines.append(f"answers  {key} ({fingerprint})")
    if key in pinned:
        return [*lines, "the same"], True
    if not pin:
        return [*lines, "NOT the same: --pin writes it, when you know why"], False
    if " " in way.host_key.strip():
        fix = "write the key that answers into agent.toml"
        raise Refused(dut, "its key stands in the settings, not in a file", fix, code="config")
    await asyncio.to_thread(_write, way.host_key, key)
    return [*lines, f"pinned in {way.host_key}; it counts from the next connection on"], True


def _write(path: str, key: str) -> None:
    Path(path).expanduser().write_text(f"{key}\n")


def _way(settings: AgentSettings, dut: str) -> SshWay:
    tables = {table.id: table for table in settings.dut}
    if dut not in tables:
        raise NotFound("dut", dut, tables)
    way = tables[dut].ssh
    if way is None:
        raise Refused(dut, "it is not reached by SSH", "add [dut.ssh]", code="no_transport")
    return way
