"""PURE: results that a tool writes in a form of its own, and a load declares in its manifest."""

from typing import Annotated, Literal

import msgspec

ResultForm = Literal[
    "pytest-junit", "k6-json", "fio-json", "iperf3-json", "linaro-test-definitions", "sysbench",
    "hyperfine-json",
]  # fmt: skip
STDOUT = "stdout"


def _inside(path: str) -> str:
    odd = path.startswith(("/", "~")) or "\\" in path or "\0" in path
    return "outside the job directory" if odd or ".." in path.split("/") else ""


ResultPath = Annotated[
    str, msgspec.Meta(min_length=1, max_length=1024, extra={"code": "path", "check": _inside})
]


class ResultFile(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is read when the job has ended, and becomes samples of the instant of its end."""

    parse: ResultForm
    file: ResultPath = STDOUT  # in the job's directory; ``stdout``: its output
    prefix: str = ""  # of the keys; empty: the name of the tool
