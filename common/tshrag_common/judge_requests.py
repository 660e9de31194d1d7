"""Requests that hold other criteria against what was stored. Form and units as in requests.py."""

import msgspec

from tshrag_common.criteria import Evidence


class JudgeStored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Judge a run that has ended by these criteria; nothing of it changes.

    ``criteria`` is the mapping of a profile, as JSON. ``baseline`` as in a submit; empty: the run
    that it was compared with when it ran, or none.
    """

    run: str
    criteria: msgspec.Raw
    baseline: str = ""


class JudgedStored(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of it: the state that the run has, and the one that it would have."""

    run: str
    state: str
    would_be: str
    evidence: tuple[Evidence, ...] = ()
    reason: str = ""
