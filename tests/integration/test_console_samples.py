"""A board with nothing but busybox, reached by its console or by SSH: its ``/proc`` is sampled."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.agent_process import an_agent
from tests.support.debian import need_program
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tests.support.serial_pty import board
from tests.support.ssh_server import SshServer
from tshrag_agent.settings import DutTable
from tshrag_agent.transport.login import Login
from tshrag_agent.transport.serial_way import SerialWay
from tshrag_agent.transport.ways import Guard
from tshrag_common.jobs import JobSpec, Need, Target
from tshrag_common.labkeys import new_lab

APPLETS = (
    "ash", "awk", "cat", "chmod", "cksum", "date", "dd", "env", "grep", "id", "ln", "ls", "mkdir",
    "mv", "od", "readlink", "rm", "sh", "sleep", "stty", "sync", "tail", "test", "touch", "tr",
    "true", "uname", "wc",
)  # fmt: skip
WANTED = ("cpu.used", "mem.total", "mem.available", "load.avg1", "uptime", "net.received")


def only_busybox(folder: Path) -> tuple[str, str]:
    """Return the PATH of a board that has busybox and nothing else, and its shell."""
    busybox = need_program("busybox", package="busybox")
    folder.mkdir()
    for name in APPLETS:
        (folder / name).symlink_to(busybox)
    return str(folder), f"{busybox} ash"


async def check(leader: Leader, script: str, runtime: str, least: int) -> None:
    need = Need(target=Target(runtime=runtime, kind="pi"))  # type: ignore[arg-type]  # both are
    spec = JobSpec(kind="command", argv=("sh", "-c", script), need=need, timeout_s=120.0)
    start = await leader.start(spec, dut="b1")
    (ended,) = await leader.until_ended(start, within_s=90)
    assert (ended.outcome, ended.notices) == ("passed", ()), ended
    found = {name: leader.values(f"dut.b1.{name}") for name in WANTED}
    assert {name for name, each in found.items() if not each} == set(), "some were not sampled"
    assert 0 < found["cpu.used"][-1] <= 1, "the load has worked between two readings"
    assert len(found["uptime"]) >= least and found["uptime"] == sorted(found["uptime"])
    if any(line.split()[2].startswith(("sd", "vd", "nvme", "mmc")) for line in _disks()):
        assert leader.values("dut.b1.disk.read")
    if _zones():
        assert leader.values("dut.b1.temp.max")
    assert ended.clock is not None and ended.clock.readings >= 2


def _zones() -> list[Path]:
    return list(Path("/sys/class/thermal").glob("thermal_zone*/temp"))


def _disks() -> list[str]:
    return [line for line in Path("/proc/diskstats").read_text().splitlines() if line.strip()]


BUSY = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done; echo done"


async def test_over_a_console_it_is_read_before_between_and_after_commands(
    tmp_path: Path, server: NatsServer
) -> None:
    leader = await Leader.begin(server, new_lab())
    path, shell = only_busybox(tmp_path / "tools")
    with board(tmp_path / "board", "--path", path, "--shell", shell) as tty:
        way = SerialWay(url=tty, login=Login(silence_s=0.5, timeout_s=30.0), grace_s=1.0)
        dut = DutTable(id="b1", kind="pi", serial=way)
        async with an_agent(tmp_path, leader, server.url, duts=(dut,), sample_s=0.2):
            await check(leader, BUSY, "serial", least=2)
    await leader.bus.close()


@contextmanager
def ssh_board(folder: Path, path: str) -> Iterator[SshServer]:
    made = SshServer("board", folder, ("--path", path, "--shell", f"{path}/ash"))
    made.start()
    try:
        yield made
    finally:
        made.stop()


async def test_over_ssh_it_is_read_on_every_tick(tmp_path: Path, server: NatsServer) -> None:
    leader = await Leader.begin(server, new_lab())
    path, _ = only_busybox(tmp_path / "tools")
    with ssh_board(tmp_path / "board", path) as ssh:
        way = ssh.way(guard=Guard(run_dir=str(tmp_path / "r")))
        dut = DutTable(id="b1", kind="pi", ssh=way)
        async with an_agent(tmp_path, leader, server.url, duts=(dut,), sample_s=0.2):
            await check(leader, f"{BUSY}; sleep 2", "ssh", least=3)
    await leader.bus.close()
