"""Metrics: their names, units and types; samples in batches."""

from typing import Literal

import msgspec

MetricType = Literal["gauge", "counter", "histogram"]


class MetricInfo(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a key: two definitions with another unit or type are a conflict."""

    key: str
    unit: str = ""
    type: MetricType = "gauge"
    description: str = ""
