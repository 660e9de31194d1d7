"""PURE: endpoints of the Prometheus text format that a load declares, asked while its job runs."""

import re
from typing import Annotated

import msgspec
from msgspec import Meta

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]{0,199}", re.ASCII)
_LABEL = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,99}", re.ASCII)


def _name(text: str) -> str:
    return "" if _NAME.fullmatch(text) else "is no name of a sample: letters, digits, '_' and ':'"


def _label(text: str) -> str:
    return "" if _LABEL.fullmatch(text) else "is no name of a label: letters, digits and '_'"


def _path(text: str) -> str:
    odd = not text.startswith("/") or not text.isascii() or not text.isprintable() or " " in text
    return "must begin with '/', without spaces" if odd else ""


SampleName = Annotated[
    str, Meta(min_length=1, max_length=200, extra={"code": "value", "check": _name})
]
LabelName = Annotated[
    str, Meta(min_length=1, max_length=100, extra={"code": "value", "check": _label})
]
HttpPath = Annotated[
    str, Meta(min_length=1, max_length=1024, extra={"code": "path", "check": _path})
]


class Scrape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is asked at 127.0.0.1 of the place where the job runs: nothing else can be named."""

    port: Annotated[int, Meta(ge=1, le=65535)]
    keys: Annotated[tuple[SampleName, ...], Meta(min_length=1, max_length=200)]
    labels: Annotated[tuple[LabelName, ...], Meta(max_length=8)] = ()
    path: HttpPath = "/metrics"
    every_s: Annotated[float, Meta(ge=0.2, le=3600)] = 5.0
    most_series: Annotated[int, Meta(ge=1, le=900)] = 200
    prefix: str = ""  # of the metrics; empty: ``scrape``, below the namespace
