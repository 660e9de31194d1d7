"""A LOG of every release is replayed to the Lab that it had then."""

from pathlib import Path

import msgspec
import pytest

from tests.support.record_log import FOLDER, RecordedLog
from tshrag_controller.core import events as e
from tshrag_controller.core.lab import Lab
from tshrag_controller.core.replay import apply_frame
from tshrag_controller.core.revive import recorded, revive
from tshrag_controller.log.frames import decode
from tshrag_controller.store.store import Store

FILES = sorted(FOLDER.glob("log-*.msgpack"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


def read(path: Path) -> RecordedLog:
    return msgspec.msgpack.decode(path.read_bytes(), type=RecordedLog)


def replayed(log: RecordedLog) -> Lab:
    lab = Lab()
    for sequence, data in log.frames:
        frame = decode(data)
        apply_frame(lab, sequence, frame.at, frame.ev_hi, frame.events)
    return lab


def test_there_is_a_log_of_the_first_release() -> None:
    assert "log-0.1" in [path.stem for path in FILES]


@each_file
def test_a_recorded_log_is_replayed_to_its_lab(path: Path) -> None:
    log = read(path)
    lab, then = replayed(log), revive(log.lab, 0)
    for name in ("sequence", "epoch", "admitted", "runs", "jobs", "attempts", "agents", "duts",
                 "keys", "counters"):  # fmt: skip
        assert getattr(lab, name) == getattr(then, name), name
    assert lab.runs, "some are alive at its end"
    assert revive(recorded(then), 0).jobs == then.jobs


@each_file
async def test_a_recorded_log_is_projected(path: Path, tmp_path: Path) -> None:
    log = read(path)
    store = await Store.open(tmp_path)
    await store.project([(sequence, decode(data)) for sequence, data in log.frames])
    count = await store.query(lambda db: db.execute("SELECT count(*) FROM runs").fetchone()[0])
    assert count == revive(log.lab, 0).admitted
    await store.close()


def test_the_first_log_holds_every_kind_of_event_that_it_knew() -> None:
    kinds = {type(event) for _, data in read(FILES[0]).frames for event in decode(data).events}
    first = {each for each in e.AnyEvent.__args__ if each.__module__ == e.__name__}
    assert kinds == first, "events of a later release stand in a room of their area"
