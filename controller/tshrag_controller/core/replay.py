"""PURE: a frame as a whole: what the engine does in turns, done again from the LOG."""

from collections.abc import Sequence

from tshrag_common.ids import Fence, RunId
from tshrag_common.states import RUN
from tshrag_controller.core import events as e
from tshrag_controller.core.apply import apply, forget
from tshrag_controller.core.lab import Lab


def apply_frame(lab: Lab, sequence: int, at: int, ev_hi: int, events: Sequence[e.AnyEvent]) -> None:
    """Let all events of a frame have happened; final runs without live attempts leave."""
    touched: set[RunId] = set()
    for event in events:
        _note(lab, event, touched)
        apply(lab, event, at)
    lab.sequence, lab.ev_hi, lab.turn_fences = sequence, max(lab.ev_hi, ev_hi), 0
    lab.at = max(lab.at, at)
    for name in touched:
        run = lab.runs.get(name)
        if run is not None and RUN.is_final(run.state) and not run.live:
            forget(lab, name)


def _note(lab: Lab, event: e.AnyEvent, touched: set[RunId]) -> None:
    """Remember the runs that an event may have ended."""
    match event:
        case e.RunJudged():
            touched.add(event.run)
        case e.AttemptEnded():
            _note_attempt(lab, event.ended.fence, touched)
        case e.AttemptLost():
            _note_attempt(lab, event.fence, touched)


def _note_attempt(lab: Lab, fence: Fence, touched: set[RunId]) -> None:
    attempt = lab.attempts.get(fence)
    if attempt is not None:
        touched.add(lab.jobs[attempt.job].run)
