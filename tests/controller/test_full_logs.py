"""More output than the stream of output can hold."""

import os
from pathlib import Path

import msgspec

from tests.support.served_lab import ScriptedAgent, ServedLab, until
from tshrag_common import wire
from tshrag_common.bus.connection import connect
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.client import Client
from tshrag_common.errors import LabError
from tshrag_common.reports import OutputBatch, OutputChunk
from tshrag_common.subjects import said
from tshrag_controller.settings import NatsTable


async def test_output_flows_on_when_more_came_than_its_stream_can_hold(
    tmp_path: Path, nats_url: str
) -> None:
    lab = ServedLab(tmp_path, nats_url)
    nats = NatsTable(url=nats_url, max_file_store=64 << 20)
    lab.settings = msgspec.structs.replace(lab.settings, nats=nats)
    lab.bus = await connect(nats_url, name="tests", within_s=10)
    lab.client = Client(lab.bus, timeout_s=10.0)
    await lab.start()
    agent = ScriptedAgent(lab)
    await agent.hello()
    size, most = 512 << 10, lab.settings.sizes.logs
    count = 2 * most // size
    for number in range(1, count + 1):
        chunk = OutputChunk(
            run="r", job="j", attempt=1, stream="stdout", offset=0, data=os.urandom(size)
        )
        batch = OutputBatch(
            agent=agent.name, spool=agent.spool("output"), first_seq=number, chunks=(chunk,)
        )
        agent.last["output"] = number
        stream = JetStream(lab.bus)
        await until_stored(stream, said(agent.name, "logs"), wire.OUTPUT.encode(batch))

    async def is_confirmed() -> bool:
        return (await agent.beat()).output_upto == count

    await until(is_confirmed)
    await lab.stop()
    await lab.bus.close()


async def until_stored(stream: JetStream, subject: str, data: bytes) -> None:
    """Publish as an agent does: a full stream refuses, and is tried again."""

    async def is_stored() -> bool:
        try:
            await stream.publish(subject, data, {})
        except LabError:
            return False
        return True

    await until(is_stored)
