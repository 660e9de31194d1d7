"""The pulses of the controllers: each says who it is and how far; each hears the others.

They only hint: a leader that hears of a higher epoch leaves at once instead of at its next frame,
a standby that hears nothing tries to lead. The LOG decides.
"""

import asyncio
import logging
from collections.abc import Callable

import msgspec

from tshrag_common import subjects
from tshrag_common.bus.connection import Bus
from tshrag_common.bus.messages import Message
from tshrag_common.clock import Clock
from tshrag_common.errors import DeadlineExceeded, Fenced, LabError, Unreachable
from tshrag_common.views import ControllerView
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.log.election import PULSE_S, STANDBY_PULSE_S, Electorate, Pulse, Role

logger = logging.getLogger(__name__)

ASK_S = 0.15
LAGS_FRAMES = 2000

_DECODER = msgspec.json.Decoder(Pulse)


class Pulses:
    """Sends and hears; ``electorate`` knows what came of it."""

    def __init__(
        self,
        bus: Bus,
        engine: Engine,
        clock: Clock,
        lab_clock: LabClock,
        node: str,
        boot: str,
        version: str,
        projected: Callable[[], int],
    ) -> None:
        self._bus, self._engine = bus, engine
        self._clock, self._lab_clock = clock, lab_clock
        self._node, self._version, self._projected = node, version, projected
        self._boot = boot
        self._newest_at = 0
        self._deposed_by: asyncio.Future[tuple[int, int]] = (
            asyncio.get_running_loop().create_future()
        )
        self.electorate = Electorate(self._boot, clock.monotonic())
        self.news = asyncio.Event()
        self.is_leaving = False
        self.troubles: Callable[[], tuple[str, ...]] = lambda: ()
        self.lacks: Callable[[], int] = lambda: 0
        self.copied_at: Callable[[], int] = lambda: 0
        self.on_copied: Callable[[int], None] = lambda _: None

    @property
    def role(self) -> Role:
        if self.is_leaving:
            return "leaving"
        return "standby" if self._engine.follows else "leader"

    async def beat(self) -> None:
        """Say what we are for ever."""
        while not self.is_leaving:
            await self.say()
            await asyncio.sleep(STANDBY_PULSE_S if self._engine.follows else PULSE_S)

    async def say(self) -> None:
        """Say once what we are; while the bus is away, nothing."""
        pulse = Pulse(
            node=self._node,
            boot=self._boot,
            role=self.role,
            epoch=self._engine.epoch,
            sequence=self._engine.sequence,
            projected=self._projected(),
            at=self._lab_clock.now(),
            version=self._version,
            lacks=self.lacks(),
            troubles=self.troubles(),
            copied_at=self.copied_at(),
        )
        if not self._bus.is_connected:
            return  # an old pulse, said when the bus is back, would speak of the past
        try:
            await self._bus.publish(subjects.ctl_heartbeat(), msgspec.json.encode(pulse))
        except LabError as error:
            logger.debug("a pulse was not sent", extra={"why": error.line})

    async def leave(self) -> None:
        """Say that we lead no more: whoever has followed so far may lead at once."""
        self.is_leaving = True
        await self.say()

    def hear(self, message: Message) -> None:
        """Take a pulse of another controller, or of this one."""
        try:
            pulse = _DECODER.decode(message.data)
        except msgspec.DecodeError:
            logger.warning("a pulse was not understood", extra={"subject": message.subject})
            return
        if pulse.boot == self._boot:
            return
        self.electorate.hear(pulse, self._clock.monotonic(), self._engine.epoch)
        if pulse.role == "leader" and pulse.epoch >= self._engine.epoch:
            self._heed(pulse)
        if pulse.role == "leaving":
            self.news.set()

    async def watch_others(self, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` for ever, whenever another controller is not there any more."""
        known: set[str] = set()
        while True:
            others = self.electorate.others(self._clock.monotonic())
            boots = {each.pulse.boot for each in others}
            if known - boots:
                on_gone()
            known = boots
            await asyncio.sleep(PULSE_S)

    def _heed(self, pulse: Pulse) -> None:
        if not self._engine.follows:
            if pulse.epoch > self._engine.epoch:
                self.step_down(pulse.epoch, pulse.sequence)
        elif pulse.at > self._newest_at:
            self._newest_at = pulse.at
            self.on_copied(pulse.copied_at)
            self._lab_clock.follow(pulse.at)

    def step_down(self, epoch: int, sequence: int) -> None:
        """End our leadership: another controller has begun `epoch` with the frame `sequence`."""
        if not self._deposed_by.done():
            self._deposed_by.set_result((epoch, sequence))

    async def deposed(self) -> None:
        """Wait until another controller is known to lead in a later epoch than ours.

        Raises:
            Fenced: that has happened.

        """
        raise Fenced(*await self._deposed_by)

    async def nobody_leads(self) -> bool:
        """Ask whether anybody leads; true only where the server knows of nobody to ask."""
        try:
            await self._bus.request(subjects.ctl_lead(), b"", ASK_S)
        except Unreachable as error:
            return error.code == "no_responders"
        except DeadlineExceeded:
            return False
        self.electorate.sign(self._clock.monotonic())
        return False

    def answer_lead(self) -> bytes | None:
        """Answer the question whether anybody leads; a standby does not hear it."""
        return None if self._engine.follows or self.is_leaving else self._node.encode()

    def views(self) -> tuple[ControllerView, ...]:
        """Return all controllers, leader first; ``lag`` counts from the leader, or the newest."""
        now = self._clock.monotonic()
        others = self.electorate.others(now)
        mine = (self._engine.sequence, 0.0)
        newest = max([mine[0], *(each.pulse.sequence for each in others)])
        own = ControllerView(
            node=self._node,
            role=self.role,
            epoch=self._engine.epoch,
            sequence=self._engine.sequence,
            lag=newest - self._engine.sequence,
            version=self._version,
            troubles=self._name_troubles(now),
        )
        views = [own, *(_view(each.pulse, now - each.at, newest) for each in others)]
        return tuple(sorted(views, key=lambda view: (view.role, view.node)))

    def reasons(self) -> tuple[str, ...]:
        """Return what is amiss among the controllers."""
        now = self._clock.monotonic()
        found = [*self._name_troubles(now)]
        others = self.electorate.others(now)
        roles = [self.role, *(each.pulse.role for each in others)]
        if "leader" not in roles:
            found.append("no_leader: no controller leads; what was accepted waits")
        for each in others:
            found += [f"{each.pulse.node}: {trouble}" for trouble in each.pulse.troubles]
        for view in self.views():
            if view.lag > LAGS_FRAMES:
                found.append(f"controller_lags: {view.node} is {view.lag} frames behind the LOG")
        return tuple(found)

    def _name_troubles(self, now: float) -> tuple[str, ...]:
        names = [each.pulse.node for each in self.electorate.others(now) if each.at > now - 2.0]
        if self._node not in names:
            return ()
        what = f"controller_name_in_use: two controllers are called {self._node}"
        return (f"{what}; give one another [controller] node",)


def _view(pulse: Pulse, heard_s: float, newest: int) -> ControllerView:
    return ControllerView(
        node=pulse.node,
        role=pulse.role,
        epoch=pulse.epoch,
        sequence=pulse.sequence,
        lag=max(0, newest - pulse.sequence),
        version=pulse.version,
        heard_s=round(heard_s, 1),
        troubles=pulse.troubles,
    )
