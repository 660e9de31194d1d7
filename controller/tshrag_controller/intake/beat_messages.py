"""Beats as they come over the bus: opened, noted by a standby, answered by the leader."""

from collections.abc import Callable, Mapping

from tshrag_common import subjects, wire
from tshrag_common.bus.messages import Message
from tshrag_common.errors import LabError, Refused
from tshrag_common.ids import AgentId
from tshrag_common.reports import Heartbeat, SpoolState
from tshrag_controller.ingest import Mark
from tshrag_controller.intake.beats import Beats, Confirmed
from tshrag_controller.intake.served import Answering, Served

AT_ONCE = 1024
"""Of a turn: those that come while a frame is stored wait for the next one, all together."""
STALE_S = 3.0
"""An agent waits no longer for the answer of a beat; its next one comes soon."""

SetAside = Callable[[str, str, bytes], None]


class BeatMessages:
    """Bytes to beats, and answers to bytes."""

    def __init__(self, beats: Beats, set_aside: SetAside) -> None:
        self._beats, self._set_aside = beats, set_aside

    def note(self, message: Message) -> None:
        """Keep what an agent says of itself, without an answer."""
        beat = self._opened(message)
        if beat is not None:
            self._beats.note(beat)

    async def answer(self, message: Message) -> bytes | None:
        beat = self._opened(message)
        if beat is None:
            return None
        return wire.HEARTBEAT_ANSWER.encode(await self._beats.on_heartbeat(beat))

    def _opened(self, message: Message) -> Heartbeat | None:
        """Return the beat in a message; what is none is set aside."""
        try:
            agent, _ = subjects.agent_of(message.subject)
            beat = wire.HEARTBEAT.decode(message.data)
            if beat.agent != agent:
                raise Refused(message.subject, f"a beat of {beat.agent}", code="not_holder")
        except LabError as error:
            self._set_aside(message.subject, error.line, message.data)
            return None
        return beat


def serve_beats(bus: Answering, messages: BeatMessages) -> Served:
    """Return what answers beats on a bus."""
    return Served(bus, "beat", messages.answer, AT_ONCE, STALE_S)


class StoredMarks:
    """Tells how far the spools of an agent rest in our stores."""

    def __init__(
        self, marks: Mapping[AgentId, Mark], reports: Mapping[AgentId, tuple[str, int]]
    ) -> None:
        self._marks, self._reports = marks, reports

    def confirmed(self, beat: Heartbeat) -> Confirmed:
        mark = self._marks.get(beat.agent, Mark())
        spool, upto = self._reports.get(beat.agent, ("", 0))
        return Confirmed(
            reports=_upto(beat.reports, spool, upto),
            samples=_upto(beat.samples, mark.samples_spool, mark.samples_whole),
            output=_upto(beat.output, mark.output_spool, mark.output_whole),
            have_samples=_upto(beat.samples, mark.samples_spool, mark.samples),
            have_output=_upto(beat.output, mark.output_spool, mark.output),
        )


def _upto(told: SpoolState, spool: str, upto: int) -> int:
    """Return what may be confirmed of the spool that the agent has now: another one counts 0."""
    return upto if told.spool == spool else 0
