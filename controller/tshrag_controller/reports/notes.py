"""PURE: what there is to note of an attempt, in words."""

from tshrag_common.reports import BoardClock
from tshrag_common.views import AttemptView
from tshrag_controller.reports.text import duration, plural


def clock(found: BoardClock | None) -> str:
    """Return how the clock of a DUT stood to that of its agent; nothing where it was not read."""
    if found is None:
        return ""
    by = duration(abs(found.offset_us) / 1e6)
    stood = f"{by} {'behind' if found.offset_us > 0 else 'ahead'}" if found.offset_us else "right"
    jumps = f", {plural(found.jumps, 'jump')}" if found.jumps else ""
    moved = f", {plural(found.aligned, 'sample')} moved" if found.aligned else ""
    error = duration(found.error_us / 1e6)
    return f"{stood} to within {error}, {plural(found.readings, 'reading')}{jumps}{moved}"


def notes(attempt: AttemptView) -> str:
    """Return in a line what there is to note of an attempt, its error first."""
    found = [attempt.error.message] if attempt.error else []
    found += attempt.notices
    if attempt.clock is not None and (attempt.clock.offset_us or attempt.clock.jumps):
        found.append(f"clock of {attempt.dut}: {clock(attempt.clock)}")
    return "; ".join(found)
