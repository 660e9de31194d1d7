"""Requests about the work a lab has had: what `tshrag history export` writes. (See requests.py.)"""

from typing import Annotated

import msgspec

from tshrag_common.ids import Whole
from tshrag_common.work import WorkLine

Page = Annotated[int, msgspec.Meta(ge=1, le=500)]


class AskWork(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Jobs of runs submitted in a span of time, page by page."""

    since: Whole = 0
    until: Whole = 0  # 0: now
    after_run: str = ""  # the last row of the page before
    after_serial: Whole = 0
    limit: Page = 250


class WorkRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job; ``line.at`` counts from ``since``. One that did not run only carries its order."""

    line: WorkLine
    ran: bool = True


class WorkAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Rows in the order of runs and serials; ``policy`` is that of the scheduler, as JSON."""

    rows: tuple[WorkRow, ...]
    more: bool = False
    policy: msgspec.Raw = msgspec.Raw(b"{}")
