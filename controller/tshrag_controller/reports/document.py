"""PURE: a run report as JSON: everything, under a name of its form."""

import msgspec

from tshrag_controller.reports.gathered import RunReport
from tshrag_controller.reports.text import safe_json


def to_json(report: RunReport) -> str:
    """Return the report as one JSON document; ``format`` names its form."""
    whole = msgspec.to_builtins(report)
    whole = {"format": report.format, **whole}
    return safe_json(msgspec.json.encode(whole, order="sorted")) + "\n"
