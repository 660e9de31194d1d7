"""Pairs of sockets that jobs take in turn, and the links by which they see them."""

import os
import socket
from pathlib import Path

import pytest

from tests.support.waiting import wait_until
from tshrag_agent.attempts.metric_gate import MetricGate
from tshrag_agent.journal.pressure import Pressure
from tshrag_agent.reports.metric_socket import NAME, STREAM
from tshrag_agent.reports.metric_sockets import MetricSockets
from tshrag_common.clock import SystemClock


def a_gate(found: list[str]) -> MetricGate:
    return MetricGate(lambda info, *_: found.append(info.key), declared=(), namespace="")


def some_sockets(tmp_path: Path) -> MetricSockets:
    return MetricSockets(tmp_path / "sockets", SystemClock(), Pressure(lambda: 0))


def a_job(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


async def test_jobs_that_follow_each_other_share_the_inode_of_a_link(tmp_path: Path) -> None:
    sockets, first, second = some_sockets(tmp_path), a_job(tmp_path, "1"), a_job(tmp_path, "2")
    _, pair = await sockets.lend(first, a_gate([]))
    assert pair is not None
    await sockets.give_back(pair)
    assert (await sockets.lend(second, a_gate([])))[1] is pair
    for name in (NAME, NAME + STREAM):
        links = [job / name for job in (first, second)]
        assert [link.readlink() for link in links] == [pair.path.with_name(name)] * 2
        assert links[0].lstat().st_ino == links[1].lstat().st_ino
    await pair.close()
    assert list(pair.path.parent.iterdir()) == []


async def test_a_link_of_its_own_where_none_can_be_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_arguments: object, **_named: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refused)
    sockets, job = some_sockets(tmp_path), a_job(tmp_path, "1")
    _, pair = await sockets.lend(job, a_gate([]))
    assert pair is not None
    assert (job / NAME).readlink() == pair.path
    await pair.close()


async def test_a_job_that_removes_its_link_leaves_that_of_the_next(tmp_path: Path) -> None:
    found: list[str] = []
    sockets, first, second = some_sockets(tmp_path), a_job(tmp_path, "1"), a_job(tmp_path, "2")
    _, pair = await sockets.lend(first, a_gate([]))
    assert pair is not None
    (first / NAME).unlink()
    await sockets.give_back(pair)
    path, _ = await sockets.lend(second, a_gate(found))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"net.x:1|g", str(second / NAME))
    await wait_until(lambda: found == ["net.x"])
    assert path
    await pair.close()
