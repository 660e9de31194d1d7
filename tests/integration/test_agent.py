import asyncio
from pathlib import Path

import msgspec

from tests.support.agent_process import AgentProcess, an_agent
from tests.support.leader import Leader
from tests.support.nats_server import NatsServer
from tests.support.waiting import wait_until
from tshrag_agent.settings import DutTable
from tshrag_agent.transport.ways import Guard, LocalWay
from tshrag_common.commands import CancelAttempt, Drain, Sync
from tshrag_common.digest import digest
from tshrag_common.ids import AgentId, Fence
from tshrag_common.jobs import JobSpec, LoadRef, Need, Target
from tshrag_common.labkeys import new_lab
from tshrag_common.reports import Goodbye, Started
from tshrag_common.seals import CommandSigner

A1 = AgentId("a1")


def builtin(name: str, **params: object) -> JobSpec:
    load = LoadRef(name=name, digest="", source=f"builtin:{name}", builtin=name)
    return JobSpec(kind="load", load=load, params=params)


async def test_a_builtin_passes_and_says_so(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        start = await leader.start(builtin("noop"))
        (ended,) = await leader.until_ended(start)
        assert (ended.outcome, ended.error) == ("passed", None)
        assert ended.started_at > 0


async def test_2000_noop_attempts_arrive_once(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url, slots=2000):
        starts = [leader.a_start() for _ in range(2000)]
        await leader.send(starts, builtin("noop"))
        ends = await leader.until_ended(*starts)
        assert {ended.outcome for ended in ends} == {"passed"}
        assert leader.repeated == 0


def command(*argv: str, **more: object) -> JobSpec:
    return JobSpec(kind="command", argv=argv, **more)  # type: ignore[arg-type]  # any fields


def shell(text: str, **more: object) -> JobSpec:
    return command("/bin/sh", "-c", text, **more)


async def test_a_command_passes_and_its_output_arrives(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        start = await leader.start(shell("echo hello; echo oops >&2"))
        (ended,) = await leader.until_ended(start)
        assert (ended.outcome, ended.exit_code) == ("passed", 0)
        assert leader.output(start) == b"hello\n"
        assert leader.output(start, "stderr") == b"oops\n"
        assert ended.stdout.length_bytes == 6
        assert ended.usage.max_rss_bytes > 0


async def test_the_profile_says_how_much_output_is_kept(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    spec = shell("head -c 2000000 /dev/zero | tr '\\0' x; echo the end", output_bytes=256 << 10)
    async with an_agent(tmp_path, leader, server.url):
        start = await leader.start(spec)
        (ended,) = await leader.until_ended(start)
        assert ended.stdout.length_bytes == 2_000_008
        assert ended.stdout.cut_bytes > 1_500_000
        stdout = tmp_path / "store" / "jobs" / start.run / "JID_001" / "stdout.log"
        assert stdout.stat().st_blocks * 512 < 512 << 10
        assert leader.chunks[-1].data.endswith(b"xthe end\n")


async def test_a_command_may_hold_names_of_the_lab(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        start = await leader.start(command("echo", "${TSHRAG_JOB_ID}", "${TSHRAG_NOBODY}"))
        await leader.until_ended(start)
        assert leader.output(start) == f"{start.job} ${{TSHRAG_NOBODY}}\n".encode()


async def test_a_directory_below_that_of_the_job_is_made(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        start = await leader.start(shell("pwd", cwd="sub/dir"))
        (ended,) = await leader.until_ended(start)
        assert ended.error is None
        assert leader.output(start).endswith(b"/JID_001/sub/dir\n")


async def test_an_exit_code_other_than_0_is_failed(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        (ended,) = await leader.until_ended(await leader.start(shell("exit 3")))
        assert (ended.outcome, ended.exit_code) == ("failed", 3)
        assert ended.error is not None
        assert ended.error.message == "exit code 3"


async def test_a_missing_executable_is_an_error_at_once(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        (ended,) = await leader.until_ended(await leader.start(command("no-such-program")))
        assert ended.outcome == "error"
        assert ended.error is not None
        assert ended.error.code == "not_found"
        assert not ended.error.retryable


async def test_a_job_longer_than_its_limit_ends_as_timeout(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        (ended,) = await leader.until_ended(
            await leader.start(command("sleep", "60", timeout_s=0.3))
        )
        assert ended.outcome == "timeout"
        assert "sleep 60" in ended.stopped[0]


async def test_a_cancelled_job_says_what_was_stopped(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url) as daemon:
        start = await leader.start(shell("echo begun; sleep 60 & sleep 60"))
        await leader.until(lambda: leader.chunks)
        await leader.send([CancelAttempt(fence=start.fence)])
        (ended,) = await leader.until_ended(start)
        assert ended.outcome == "cancelled"
        assert sum("sleep 60" in one for one in ended.stopped) == 3  # the shell too
        assert daemon.roster.slots.free == 4


async def test_samples_in_the_output_arrive(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        text = "for i in 1 2 3; do echo ::metric network::latency ${i}ms; done"
        start = await leader.start(shell(text))
        (ended,) = await leader.until_ended(start)
        assert ended.samples_upto > 0
        values = [
            sample.value
            for batch in leader.samples
            for series in batch.series
            if series.key == "network.latency"
            for sample in series.samples()
        ]
        assert values == [0.001, 0.002, 0.003]


async def test_a_repeated_a_late_and_a_forged_command_start_nothing(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url) as daemon:
        marks = tmp_path / "marks"
        spec = shell(f"echo . >> {marks}")
        start = leader.a_start()
        first = leader.sealed([start], spec)
        await leader.publish(first)
        await leader.until_ended(start)
        await leader.publish(first)
        await leader.send([start], spec)
        forged = CommandSigner(new_lab().controller).seal(A1, first[68:])
        await leader.publish(forged)
        await leader.publish(b"rubbish")
        await leader.until_ended(await leader.start(builtin("noop")))
        counters = daemon.intake.counters
        assert (counters["commands_late"], counters["commands_forged"]) == (1, 2)
        assert counters["starts_repeated"] == 1
        assert marks.read_text() == ".\n"


async def test_a_sync_keeps_what_it_only_names(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url) as daemon:
        kept = await leader.start(command("sleep", "60"))
        beyond = await leader.start(command("sleep", "60"))
        await leader.until(lambda: len(daemon.roster.live) == 2)
        await leader.send([Sync(attempts=(), keep=(kept.fence,))])
        await leader.until_ended(beyond)
        assert set(daemon.roster.live) == {kept.fence}
        await leader.send([CancelAttempt(fence=kept.fence)])
        await leader.until_ended(kept)


async def test_a_sync_ends_what_must_end_and_tells_of_what_never_came(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        here = await leader.start(command("sleep", "60"))
        kept = await leader.start(command("sleep", "60"))
        never = leader.a_start()
        await leader.send(
            [Sync(attempts=(), keep=(kept.fence,), cancels=(here.fence, never.fence))]
        )
        (ended, told) = await leader.until_ended(here, never)
        assert (ended.outcome, told.outcome) == ("cancelled", "cancelled")
        assert ended.error is not None and ended.error.code == "cancelled"
        await leader.send([Sync(attempts=(), cancels=(kept.fence,))])
        await leader.until_ended(kept)


async def test_a_sync_starts_what_was_lost_and_ends_what_it_does_not_name(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url) as daemon:
        beyond = await leader.start(command("sleep", "60"))
        done = await leader.start(builtin("noop"))
        await leader.until_ended(done)
        await leader.until(lambda: len(daemon.roster.live) == 1)
        leader.sealed([leader.a_start()], builtin("noop"))  # this one is never sent
        lost = leader.a_start()
        await leader.send([Sync(attempts=(lost, done))], builtin("noop"))
        (gone, found) = await leader.until_ended(beyond, lost)
        assert (gone.outcome, found.outcome) == ("cancelled", "passed")
        assert gone.error is not None
        assert gone.error.code == "lost"
        assert daemon.roster.digest == 0


async def test_the_digest_of_a_beat_names_what_lives(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        start = await leader.start(command("sleep", "60"))
        await leader.until(lambda: leader.beats[-1].digest == digest([start.fence]))
        assert leader.beats[-1].free_slots == 3
        await leader.send([CancelAttempt(fence=start.fence)])
        await leader.until_ended(start)
        await leader.until(lambda: leader.beats[-1].digest == 0)


async def test_what_has_no_room_is_refused_with_its_reason(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url, slots=1):
        starts = [leader.a_start(), leader.a_start()]
        await leader.send(starts, builtin("sleep", seconds=0.2))
        first, second = await leader.until_ended(*starts)
        assert (first.outcome, second.outcome) == ("passed", "refused")
        assert second.error is not None
        assert second.error.message == "1 slots are needed, 0 are free"


async def test_confirmed_records_leave_the_journal(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        await leader.until_ended(await leader.start(shell("echo hello")))
        await leader.until(lambda: leader.beats[-1].spool_bytes == 0)
        beat = leader.beats[-1]
        assert beat.reports.confirmed == beat.reports.last > 0
        assert beat.output.confirmed == beat.output.last > 0


async def test_an_agent_that_is_not_known_says_hello_again(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        leader.knows = False
        await leader.until(lambda: len(leader.hellos) == 2)
        assert leader.hellos[1].facts.slots == 4


def text_of(path: str) -> str:
    return Path(path).read_text()


async def test_a_job_sees_the_names_of_the_lab_and_nothing_of_the_agent(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        spec = command("env", env={"MINE": "in ${TSHRAG_JOB_ID} of ${OTHER}"}, params={"n": 1})
        start = await leader.start(spec)
        await leader.until_ended(start)
        lines = leader.output(start).decode().splitlines()
        env = dict(line.split("=", 1) for line in lines)
        assert env["MINE"] == f"in {start.job} of ${{OTHER}}"
        assert env["TSHRAG_TEST_ID"] == env["TSHRAG_RUN_ID"] == start.run
        assert env["TSHRAG_ATTEMPT"] == "1"
        assert env["SIM_SEED"] == "4242"
        assert env["TSHRAG_JOB_DIR"].endswith(f"/jobs/{start.run}/JID_001")
        assert text_of(env["TSHRAG_PARAMS"]) == '{"n":1}'
        assert not [name for name in env if name.startswith(("PYTEST", "VIRTUAL_ENV"))]


async def test_a_draining_agent_refuses_and_takes_work_again(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        await leader.send([Drain()])
        (refused,) = await leader.until_ended(await leader.start(builtin("noop")))
        assert refused.error is not None
        assert (refused.outcome, refused.error.code) == ("refused", "draining")
        await leader.send([Drain(on=False)])
        (passed,) = await leader.until_ended(await leader.start(builtin("noop")))
        assert passed.outcome == "passed"


async def test_a_local_dut_runs_a_command_under_its_fence(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    dut = DutTable(id="board", kind="pc", local=LocalWay(guard=Guard(run_dir=str(tmp_path / "r"))))
    async with an_agent(tmp_path, leader, server.url, duts=(dut,)):
        need = Need(target=Target(runtime="local", kind="pc"))
        spec = shell("echo on the board; echo ::metric a.b 5 ; exit 4", need=need)
        start = await leader.start(spec, dut="board")
        (ended,) = await leader.until_ended(start)
        assert (ended.outcome, ended.exit_code) == ("failed", 4)
        assert b"on the board" in leader.output(start)
        assert ended.samples_upto > 0
        stale = msgspec.structs.replace(leader.a_start(dut="board"), fence=Fence(start.fence - 1))
        await leader.send([stale], spec)
        (refused,) = await leader.until_ended(stale)
        assert refused.error is not None
        assert (refused.outcome, refused.error.code) == ("refused", "stale_fence")


async def test_a_cancelled_attempt_on_a_dut_leaves_nothing_there(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    dut = DutTable(id="board", kind="pc", local=LocalWay(guard=Guard(run_dir=str(tmp_path / "r"))))
    async with an_agent(tmp_path, leader, server.url, duts=(dut,)):
        need = Need(target=Target(runtime="local", kind="pc"))
        start = await leader.start(shell("echo begun; sleep 61", need=need), dut="board")
        await leader.until(lambda: leader.chunks)
        await leader.send([CancelAttempt(fence=start.fence)])
        (ended,) = await leader.until_ended(start)
        assert ended.outcome == "cancelled"


async def test_everything_arrives_once_when_the_bus_dies_in_the_middle(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url, slots=8):
        text = "for i in $(seq 300); do echo line $i; echo ::metric a.b $i; sleep 0.01; done"
        starts = [leader.a_start() for _ in range(4)]
        await leader.send(starts, shell(text))
        await leader.until(lambda: leader.chunks)
        await asyncio.to_thread(server.kill9)
        await asyncio.sleep(0.7)
        await asyncio.to_thread(server.start)
        ends = await leader.until_ended(*starts, within_s=30)
        assert {ended.outcome for ended in ends} == {"passed"}
        for start in starts:
            assert leader.output(start).count(b"line") == 300
        values = sorted(
            sample.value for batch in leader.samples for s in batch.series for sample in s.samples()
        )
        assert values == sorted(4 * [float(i) for i in range(1, 301)])


async def test_a_killed_agent_adopts_its_job_and_no_byte_is_missing(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    agent = AgentProcess(tmp_path / "a1", leader.keys.plain_agent(A1, server.url)).start()
    try:
        await leader.until(lambda: leader.hellos, 30)
        text = "for i in $(seq 200); do echo line $i; echo ::metric a.b $i; sleep 0.02; "
        text += "echo $(date +%s)000000,$i >> metrics/a::c.csv; done"
        start = await leader.start(shell(text))
        await leader.until(lambda: leader.values("a.c"))
        agent.kill9()
        agent.start()
        (ended,) = await leader.until_ended(start, within_s=40)
        assert ended.outcome == "passed"
        lines = [line for line in leader.output(start).split(b"\n") if line.startswith(b"line")]
        assert lines == [b"line %d" % i for i in range(1, 201)]
        assert leader.values("a.b") == [float(i) for i in range(1, 201)]
        assert leader.values("a.c") == [float(i) for i in range(1, 201)]
        assert leader.hellos[1].holds == (start.fence,)
        assert b"canary" not in leader.output(start)
    finally:
        assert agent.stop() == 0
        agent.end_shepherd()


async def test_what_a_killed_agent_did_itself_ends_as_an_error_of_the_lab(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    agent = AgentProcess(tmp_path / "a1", leader.keys.plain_agent(A1, server.url)).start()
    try:
        await leader.until(lambda: leader.hellos, 30)
        start = await leader.start(builtin("sleep", seconds=60))
        await leader.until(lambda: any(isinstance(r, Started) for r in leader.reports))
        agent.kill9()
        agent.start()
        (ended,) = await leader.until_ended(start, within_s=30)
        assert ended.error is not None
        assert (ended.outcome, ended.error.code) == ("error", "agent_restarted")
        assert ended.error.retryable
    finally:
        agent.stop()
        agent.end_shepherd()


async def test_a_second_agent_in_the_same_folder_says_so(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    bundle = leader.keys.plain_agent(A1, server.url)
    agent = AgentProcess(tmp_path / "a1", bundle).start()
    second = AgentProcess(tmp_path / "a1", bundle)
    second.log = tmp_path / "second.log"
    try:
        await leader.until(lambda: leader.hellos, 30)
        second.start()
        assert await asyncio.to_thread(second.process.wait, 30) == 2
        assert "already_running" in second.log.read_text()
        assert f"pid {agent.process.pid}" in second.log.read_text()
    finally:
        agent.stop()
        agent.end_shepherd()


async def test_samples_come_from_files_and_from_the_socket(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url):
        text = (
            "import os, socket, time\n"
            "now = int(time.time() * 1e6)\n"
            "open('metrics/disk::wait.csv', 'w').write(f'{now},1\\n{now + 1},2\\n')\n"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
            "s.sendto(b'net.load:7|g', os.environ['TSHRAG_METRICS'])\n"
        )
        (ended,) = await leader.until_ended(await leader.start(command("python3", "-c", text)))
        assert (ended.outcome, ended.notices) == ("passed", ())
        assert leader.values("disk.wait") == [1.0, 2.0]
        assert leader.values("net.load") == [7.0]


async def test_host_and_attempt_are_sampled(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url, sample_s=0.1):
        start = await leader.start(command("sleep", "1"))
        await leader.until_ended(start)
        await leader.until(lambda: leader.values("host.a1.mem.total"))
        assert leader.values("attempt.processes")[0] == 1.0


async def test_sigterm_ends_what_is_left_as_an_error_of_the_lab_and_says_goodbye(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    agent = AgentProcess(tmp_path / "a1", leader.keys.plain_agent(A1, server.url)).start()
    try:
        await leader.until(lambda: leader.hellos, 30)
        start = await leader.start(command("sleep", "60"))
        await leader.until(lambda: any(isinstance(r, Started) for r in leader.reports))
        assert await asyncio.to_thread(agent.stop) == 0
        await leader.until(lambda: any(isinstance(r, Goodbye) for r in leader.reports))
        ended = leader.ends[start.fence]
        assert ended.error is not None
        assert (ended.outcome, ended.error.code) == ("error", "agent_stopped")
    finally:
        agent.stop()
        agent.end_shepherd()


async def test_an_agent_hands_its_jobs_over_to_the_next_one(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    agent = AgentProcess(tmp_path / "a1", leader.keys.plain_agent(A1, server.url))
    agent.start("--handover")
    try:
        await leader.until(lambda: leader.hellos, 30)
        start = await leader.start(shell("echo one; sleep 2; echo two"))
        await leader.until(lambda: leader.chunks)
        assert await asyncio.to_thread(agent.stop) == 0
        agent.start()
        (ended,) = await leader.until_ended(start, within_s=30)
        assert ended.outcome == "passed"
        assert leader.output(start) == b"one\ntwo\n"
    finally:
        agent.stop()
        agent.end_shepherd()


async def test_while_the_disk_is_full_nothing_starts_and_a_sync_heals(
    tmp_path: Path, server: NatsServer, leader: Leader
) -> None:
    async with an_agent(tmp_path, leader, server.url) as daemon:
        pages = daemon._journal._store._db.execute
        pages("PRAGMA max_page_count = 1")
        big = builtin("noop", text="x" * 500_000)
        start = await leader.start(big)
        await wait_until(lambda: daemon.intake.counters["storage_full"] == 1)
        assert not daemon.roster.live
        pages("PRAGMA max_page_count = 1000000")
        await leader.send([Sync(attempts=(start,))], big)
        (ended,) = await leader.until_ended(start)
        assert ended.outcome == "passed"


async def test_a_real_server_with_accounts_lets_the_agent_say_its_own_things_only(
    tmp_path: Path,
) -> None:
    keys, bundle = new_lab().with_agent(A1, "nats://127.0.0.1:1")
    server = NatsServer(tmp_path / "nats", keys=keys)
    await asyncio.to_thread(server.start)
    leader = await Leader.begin(server, keys)
    bundle = msgspec.structs.replace(bundle, url=server.url)
    agent = AgentProcess(tmp_path / "a1", bundle).start()
    try:
        await leader.until(lambda: leader.hellos, 30)
        (ended,) = await leader.until_ended(await leader.start(shell("echo hello")))
        assert ended.outcome == "passed"
        await leader.until(lambda: leader.beats and leader.beats[-1].reports.confirmed)
    finally:
        agent.stop()
        agent.end_shepherd()
        await leader.bus.close()
        await asyncio.to_thread(server.stop)
