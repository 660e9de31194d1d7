"""What people do with a board from afar: power, boot, ports, files. Each takes its lease.

The end of the lease, by whomever, ends every channel that was opened under it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from tshrag_agent.boards.boards import Boards
from tshrag_agent.boards.files import Files
from tshrag_agent.boards.tunnel import tunnel
from tshrag_agent.channels import Channels
from tshrag_agent.duts import Duts
from tshrag_agent.leases import Leases
from tshrag_agent.transport.host_key import pinned_keys
from tshrag_common.channel.channel import Channel, ChannelClosed
from tshrag_common.channel.wants import (
    BoardWord,
    BootWant,
    ForwardWant,
    GetWant,
    PowerWant,
    PutWant,
    SshFacts,
    SshFactsWant,
)
from tshrag_common.commands import ServeChannel
from tshrag_common.errors import ErrorReport, NotFound, PolicyDenied, Refused
from tshrag_common.ids import DutId, Fence

T = TypeVar("T")


class BoardServer:
    """Serves the boards of one agent to people."""

    def __init__(self, boards: Boards, duts: Duts, leases: Leases, files: Files) -> None:
        self._boards, self._duts, self._leases, self._files = boards, duts, leases, files
        self._open: dict[Channel, tuple[DutId, Fence]] = {}
        self._removing = set[asyncio.Future[None]]()
        leases.on_end(self._on_end)

    def open_to(self, channels: Channels) -> None:
        """Serve all that people may want of a board."""
        channels.serve(ForwardWant, self._forward)
        channels.serve(SshFactsWant, self._ssh_facts)
        channels.serve(PowerWant, self._power)
        channels.serve(BootWant, self._boot)
        channels.serve(PutWant, self._put)
        channels.serve(GetWant, self._get)

    async def _forward(self, channel: Channel, command: ServeChannel, want: ForwardWant) -> None:
        dut = self._held(command)
        table = self._boards.table(dut)
        if table.ssh is None:
            what = "it is not on a network that this agent knows"
            raise Refused(dut, what, "add [dut.ssh]", code="no_network")
        await self._under_lease(
            channel, command, tunnel(channel, table, want, lambda: self._leases.use(dut))
        )

    async def _ssh_facts(self, channel: Channel, command: ServeChannel, want: SshFactsWant) -> None:
        dut = self._known(command)
        way = self._boards.table(dut).ssh
        if way is None:
            raise Refused(dut, "it is not reached by SSH", "add [dut.ssh]", code="no_transport")
        keys = await asyncio.to_thread(pinned_keys, way)
        facts = SshFacts(user=way.user, port=way.port, host_keys=keys)
        await channel.say(msgspec.json.encode(facts))

    async def _power(self, channel: Channel, command: ServeChannel, want: PowerWant) -> None:
        dut = self._known(command)
        switch = self._boards.power(dut)
        doing: dict[str, Callable[[], Awaitable[None]]] = {
            "on": switch.on,
            "off": switch.off,
            "cycle": switch.cycle,
        }
        if want.what in doing:
            self._held(command)
            self._boards.used_by(dut, _user(command))
            await self._under_lease(channel, command, _done(doing[want.what]))
        watts = await switch.read() if want.what == "read" else None
        note = f"switched on {self._boards.mains.counts[dut]} times"
        await _tell(channel, BoardWord(states=(await switch.status(),), note=note, watts=watts))

    async def _boot(self, channel: Channel, command: ServeChannel, want: BootWant) -> None:
        dut = self._held(command)
        self._boards.used_by(dut, _user(command))
        board = self._boards.board(dut)
        said = asyncio.Queue[bytes]()
        work = board.to(want.to, command.fence, said.put_nowait, fresh=want.fresh)
        showing = asyncio.create_task(_show(channel, said), name=f"boot of {dut}")
        try:
            states = await self._under_lease(channel, command, work)
        finally:
            said.put_nowait(b"")
            await asyncio.gather(showing, return_exceptions=True)
        await _tell(channel, BoardWord(states=tuple(states)))

    async def _put(self, channel: Channel, command: ServeChannel, want: PutWant) -> None:
        dut = self._held(command)
        transport = self._duts.transport(dut, "dut")
        work = self._files.put(channel, transport, command.fence, want)
        size = await self._under_lease(channel, command, work)
        await _tell(channel, BoardWord(note=f"{size} bytes"))

    async def _get(self, channel: Channel, command: ServeChannel, want: GetWant) -> None:
        dut = self._held(command)
        transport = self._duts.transport(dut, "dut")
        work = self._files.get(channel, transport, command.fence, want)
        await self._under_lease(channel, command, work)

    def _known(self, command: ServeChannel) -> DutId:
        if command.dut is None or not self._boards.knows(command.dut):
            raise NotFound("dut", str(command.dut), self._boards.names)
        return command.dut

    def _held(self, command: ServeChannel) -> DutId:
        """Return the DUT; raise where the person has not its lease, now."""
        dut = self._known(command)
        if not command.fence:
            fix = f"tshrag lease take {dut}"
            raise PolicyDenied(f"dut {dut}", "that takes its lease", fix, code="no_lease")
        self._leases.check(dut, command.fence)
        self._leases.use(dut)
        return dut

    async def _under_lease(
        self, channel: Channel, command: ServeChannel, work: Coroutine[Any, Any, T]
    ) -> T:
        """Do `work` until it is done, the person has gone, or his lease is over."""
        task = asyncio.create_task(work, name=f"board channel {channel.name}")
        gone = asyncio.create_task(channel.gone(), name=f"end of {channel.name}")
        if command.dut is not None:
            self._open[channel] = command.dut, command.fence
        try:
            await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ChannelClosed(channel.name, "who opened it has gone")
            return task.result()
        finally:
            task.cancel()
            gone.cancel()
            await asyncio.gather(task, gone, return_exceptions=True)
            self._open.pop(channel, None)

    def _on_end(self, dut: DutId, fence: Fence, why: str) -> None:
        for channel, of in list(self._open.items()):
            if of == (dut, fence):
                channel.close(ErrorReport(code="lease_over", message=f"the lease ended: {why}"))
        removing = asyncio.get_running_loop().run_in_executor(None, self._files.forget, fence)
        self._removing.add(removing)
        removing.add_done_callback(self._removing.discard)


async def _done(doing: Callable[[], Awaitable[None]]) -> None:
    await doing()


def _user(command: ServeChannel) -> str:
    return f"lease-{command.fence}/{command.fence}"


async def _tell(channel: Channel, word: BoardWord) -> None:
    await channel.say(msgspec.json.encode(word))


async def _show(channel: Channel, said: "asyncio.Queue[bytes]") -> None:
    while data := await said.get():
        await channel.write(data)
