"""PURE: who leads, as far as this controller has heard, and when it may try to lead itself.

Nothing here decides an election: that does the LOG, which takes one frame with the next epoch and
refuses every other. What is here only says when it is worth a try, so that a leader that is well
is left alone. All instants are seconds of this controller's monotonic clock.
"""

from typing import Literal

import msgspec

from tshrag_common.ids import Epoch
from tshrag_controller.core.lab import Lab

PULSE_S = 0.3
"""Between two pulses of a leader."""
STANDBY_PULSE_S = 1.0
DOUBT_S = 0.6
"""A leader silent for so long is asked for: where nobody hears the question, it has died."""
SILENT_S = 1.5
"""A leader silent for so long is replaced, whatever the reason: frozen, cut off, dead."""
PATIENCE_S = 4.0
"""Waited longer by a controller that lacks data: one that has all goes first."""
GONE_S = 3.5
"""Who was silent for so long is no controller of this lab any more."""

Role = Literal["leader", "standby", "leaving"]
Verdict = Literal["wait", "ask", "try"]


class Pulse(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every controller says of itself, again and again; it may be lost.

    ``at`` is the time of the lab as the leader counts it. ``leaving``: it has written its last
    frame, ``sequence``, and whoever has that may lead at once. ``boot`` tells two lives apart.
    """

    node: str
    boot: str
    role: Role
    epoch: Epoch
    sequence: int
    projected: int
    at: int = 0
    version: str = ""
    lacks: int = 0  # gaps in the samples and output that it has stored
    troubles: tuple[str, ...] = ()
    copied_at: int = 0  # before this instant all samples are at the remote-write side; 0: unknown


class Heard(msgspec.Struct, frozen=True):
    """A pulse, and when it was heard."""

    pulse: Pulse
    at: float


def next_epoch(lab: Lab) -> Epoch:
    """Return the epoch of the next leader: one more, and at first the place of its own frame.

    Agents heed no command of an epoch before the newest that they have heard, across labs: like
    fences, the epochs of a lab that is made anew begin behind all that were before.
    """
    return Epoch((lab.epoch or lab.sequence) + 1)


class Electorate:
    """The controllers of a lab as one of them hears them."""

    def __init__(self, boot: str, now: float) -> None:
        self._boot = boot
        self._heard: dict[str, Heard] = {}
        self._sign_at = now
        self._left: Pulse | None = None

    def hear(self, pulse: Pulse, now: float, reached: int = 0) -> None:
        """Take a pulse, where the LOG has `reached` that epoch: a deposed leader is no leader."""
        if pulse.boot == self._boot:
            return
        known = self._heard.get(pulse.boot)
        if known is not None and known.pulse.epoch > pulse.epoch:
            return  # it was on its way for long, or was deposed and does not know it yet
        for boot, heard in list(self._heard.items()):
            if heard.pulse.node == pulse.node and now - heard.at > STANDBY_PULSE_S:
                del self._heard[boot]  # it was started anew
        self._heard[pulse.boot] = Heard(pulse, now)
        if pulse.epoch < max(self.epoch, reached):
            return
        if pulse.role == "leader":
            self._sign_at, self._left = now, None
        elif pulse.role == "leaving":
            self._left = pulse

    def sign(self, now: float) -> None:
        """Note a sign of the leader's life, or that we could not have heard one until now."""
        self._sign_at = max(self._sign_at, now)

    @property
    def epoch(self) -> Epoch:
        """Return the newest epoch that a leader was heard with."""
        epochs = [
            heard.pulse.epoch for heard in self._heard.values() if heard.pulse.role == "leader"
        ]
        return max(epochs, default=Epoch(0))

    def others(self, now: float) -> list[Heard]:
        """Return the controllers that are there beside this one, leader first, then by name."""
        gone = [boot for boot, heard in self._heard.items() if now - heard.at > GONE_S]
        for boot in gone:
            del self._heard[boot]
        alive = [each for each in self._heard.values() if each.pulse.role != "leaving"]
        return sorted(alive, key=lambda each: (each.pulse.role, each.pulse.node))

    def verdict(self, now: float, lab: Lab, lacks: bool) -> Verdict:
        """Tell whether to try to lead, with `lab` as far as it has followed."""
        left = self._left
        if left is not None and left.epoch == lab.epoch and left.sequence <= lab.sequence:
            return "try"
        silent_s = now - self._sign_at
        if silent_s >= SILENT_S + (PATIENCE_S if lacks else 0.0):
            return "try"
        return "ask" if silent_s >= DOUBT_S else "wait"
