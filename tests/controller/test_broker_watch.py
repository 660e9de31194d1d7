"""A stream that is nearly full is shown, with what to do."""

from pathlib import Path

import pytest

from tests.support.served_lab import served, until
from tshrag_common import subjects
from tshrag_common.bus.jetstream import JetStream
from tshrag_common.errors import StorageFull
from tshrag_common.ids import AgentId
from tshrag_common.streams import EV


async def test_a_full_stream_is_shown_and_forgotten(tmp_path: Path, nats_url: str) -> None:
    async with served(tmp_path, nats_url) as lab:
        log = JetStream(lab.bus)

        async def is_shown() -> bool:
            reasons = (await lab.client.health()).reasons
            return any("storage_full: stream OBJ_loads" in reason for reason in reasons)

        assert not await is_shown()
        blob = "$O.loads.C.somebody"
        with pytest.raises(StorageFull):
            while True:
                await log.publish(blob, bytes(900_000), {})
        await until(is_shown, 30)
        await log.purge_subject("OBJ_loads", blob)

        async def is_forgotten() -> bool:
            return not await is_shown()

        await until(is_forgotten, 30)


async def test_reports_that_were_read_make_room(tmp_path: Path, nats_url: str) -> None:
    async with served(tmp_path, nats_url) as lab:
        log = JetStream(lab.bus)
        subject = subjects.said(AgentId("a1"), "ev")
        for number in range(20):  # five times what the stream holds, and nothing of it readable
            while True:
                try:
                    await log.publish(subject, bytes(800_000), {"Nats-Msg-Id": str(number)})
                    break
                except StorageFull:
                    continue
        assert (await log.stream_info(EV)).last_seq == 20
