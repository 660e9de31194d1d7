import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.support.agent_process import an_agent
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tests.support.ssh_server import SshServer
from tshrag_agent.settings import DutTable
from tshrag_agent.transport.ways import Guard, LocalWay, SshWay
from tshrag_common.jobs import JobSpec, LoadRef, Need, Target
from tshrag_common.labkeys import new_lab
from tshrag_common.sources.pack import pack
from tshrag_common.sources.policy import SourceLimits

MANIFEST = b"""
name = "probe"
version = "1"
setup = ["./setup.sh", "one"]
cleanup = ["./cleanup.sh"]
[[platforms]]
entry = "bin/run.sh"
"""
RUN = b"""#!/bin/sh
. "$(dirname "$0")/../lib.sh"
say "params $(cat input_params.json)"
echo "::metric probe.value 5"
echo "$(date +%s)000000,7" > metrics/probe::file.csv
echo made > artifacts/made.txt
exit ${WITH:-0}
"""
FILES = {
    "load.toml": MANIFEST,
    "bin/run.sh": RUN,
    "lib.sh": b'say() { echo "said: $1"; }\n',
    "setup.sh": b'#!/bin/sh\necho "setup $1"\nexit ${SETUP:-0}\n',
    "cleanup.sh": b"#!/bin/sh\necho cleaned >&2\n",
}


@pytest.fixture
async def leader(tmp_path: Path) -> AsyncIterator[Leader]:
    server = NatsServer(tmp_path / "nats")
    await asyncio.to_thread(server.start)
    leader = await Leader.begin(server, new_lab())
    yield leader
    await leader.bus.close()
    await asyncio.to_thread(server.stop)


def a_load(folder: Path, leader: Leader, files: dict[str, bytes] = FILES) -> LoadRef:
    tree = folder / "tree"
    for name, data in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755)
    packed = pack(tree, folder / "load.tar", SourceLimits())
    leader.blobs[packed.digest] = (folder / "load.tar").read_bytes()
    assert hashlib.sha256(leader.blobs[packed.digest]).hexdigest() == packed.digest
    return LoadRef(name="probe", digest=packed.digest, source="file:", size_bytes=packed.size_bytes)


def url(leader: Leader) -> str:
    return leader.bus.server_info.url


def is_there(path: str) -> bool:
    return Path(path).exists()


async def test_a_load_is_fetched_set_up_executed_and_cleaned_up(
    tmp_path: Path, leader: Leader
) -> None:
    spec = JobSpec(kind="load", load=a_load(tmp_path, leader), params={"n": 1})
    async with an_agent(tmp_path, leader, url(leader)):
        start = await leader.start(spec)
        (ended,) = await leader.until_ended(start)
        assert ended.error is None
        assert leader.output(start) == (
            b'setup one\nsaid: params {"n":1}\n::metric probe.value 5\n'
        )
        assert leader.output(start, "stderr") == b"cleaned\n"
        assert leader.values("probe.value") == [5.0]
        assert leader.values("probe.file") == [7.0]
        folder = tmp_path / "store" / "jobs" / start.run / "JID_001"
        assert {path.name for path in folder.iterdir()} >= {
            "load_bin", "input_params.json", "metrics", "stdout.log", "stderr.log", "artifacts",
        }  # fmt: skip


async def test_setup_and_cleanup_name_scripts_of_the_load_as_the_example_does(
    tmp_path: Path, leader: Leader
) -> None:
    manifest = MANIFEST.replace(b'["./setup.sh", "one"]', b'["sh", "setup.sh", "two"]')
    manifest = manifest.replace(b'["./cleanup.sh"]', b'["sh", "cleanup.sh"]')
    load = a_load(tmp_path, leader, {**FILES, "load.toml": manifest})
    async with an_agent(tmp_path, leader, url(leader)):
        start = await leader.start(JobSpec(kind="load", load=load))
        (ended,) = await leader.until_ended(start)
        assert ended.error is None
        assert leader.output(start).startswith(b"setup two\nsaid: ")
        assert leader.output(start, "stderr") == b"cleaned\n"


async def test_cleanup_follows_a_setup_that_failed(tmp_path: Path, leader: Leader) -> None:
    spec = JobSpec(kind="load", load=a_load(tmp_path, leader), env={"SETUP": "3"})
    async with an_agent(tmp_path, leader, url(leader)):
        start = await leader.start(spec)
        (ended,) = await leader.until_ended(start)
        assert ended.error is not None
        assert (ended.outcome, ended.error.code) == ("error", "setup_failed")
        assert leader.output(start, "stderr") == b"cleaned\n"


async def test_a_load_whose_bytes_are_others_never_starts(tmp_path: Path, leader: Leader) -> None:
    load = a_load(tmp_path, leader)
    leader.blobs[load.digest] = leader.blobs[load.digest][:-1] + b"x"
    async with an_agent(tmp_path, leader, url(leader)):
        (ended,) = await leader.until_ended(await leader.start(JobSpec(kind="load", load=load)))
        assert ended.error is not None
        assert (ended.outcome, ended.started_at) == ("error", 0)
        assert ended.error.code == "sha256_mismatch"


async def test_a_load_without_an_entry_for_this_platform_says_which_it_has(
    tmp_path: Path, leader: Leader
) -> None:
    manifest = MANIFEST + b'arch = "riscv64"\n'
    load = a_load(tmp_path, leader, {**FILES, "load.toml": manifest})
    async with an_agent(tmp_path, leader, url(leader)):
        (ended,) = await leader.until_ended(await leader.start(JobSpec(kind="load", load=load)))
        assert ended.error is not None
        assert ended.error.code == "no_platform"
        assert "linux/riscv64" in ended.error.message


@pytest.fixture
def board(tmp_path: Path) -> Iterator[SshServer]:
    server = SshServer("openssh", tmp_path / "sshd")
    server.start()
    yield server
    server.stop()


async def executed_on(
    tmp_path: Path, leader: Leader, dut: DutTable, runtime: str, **env: str
) -> None:
    need = Need(target=Target(runtime=runtime, kind="pc"))  # type: ignore[arg-type]  # a way
    load = a_load(tmp_path, leader)
    spec = JobSpec(kind="load", load=load, params={"n": 1}, need=need, env=env)
    async with an_agent(tmp_path, leader, url(leader), duts=(dut,)):
        start = await leader.start(spec, dut="board")
        (ended,) = await leader.until_ended(start, within_s=40)
        assert (ended.outcome, ended.exit_code) == ("failed", 4), ended
        assert leader.output(start) == (
            b'setup one\nsaid: params {"n":1}\n::metric probe.value 5\n'
        )
        assert leader.output(start, "stderr") == b"cleaned\n"
        assert leader.values("probe.value") == [5.0]
        assert leader.values("probe.file") == [7.0]
        folder = tmp_path / "store" / "jobs" / start.run / "JID_001"
        assert (folder / "artifacts" / "made.txt").read_bytes() == b"made\n"
        assert not is_there(f"/tmp/tshrag-{start.job}.1")


async def test_a_load_is_sent_to_a_dut_over_ssh_and_what_it_made_comes_back(
    tmp_path: Path, leader: Leader, board: SshServer
) -> None:
    way: SshWay = board.way(guard=Guard(run_dir=str(tmp_path / "run")))
    await executed_on(tmp_path, leader, DutTable(id="board", kind="pc", ssh=way), "ssh", WITH="4")


async def test_a_load_is_executed_on_a_local_dut(tmp_path: Path, leader: Leader) -> None:
    way = LocalWay(guard=Guard(run_dir=str(tmp_path / "run")))
    await executed_on(tmp_path, leader, DutTable(id="board", kind="pc", local=way), "dut", WITH="4")


async def test_a_dut_that_does_not_answer_is_an_error_of_the_lab(
    tmp_path: Path, leader: Leader, board: SshServer
) -> None:
    way = board.way(port=1)
    dut = DutTable(id="board", kind="pc", ssh=way)
    need = Need(target=Target(runtime="ssh", kind="pc"))
    async with an_agent(tmp_path, leader, url(leader), duts=(dut,)):
        spec = JobSpec(kind="command", argv=("true",), need=need)
        (ended,) = await leader.until_ended(await leader.start(spec, dut="board"))
        assert ended.error is not None
        assert (ended.outcome, ended.error.code) == ("error", "ssh_refused")
        assert ended.error.retryable
