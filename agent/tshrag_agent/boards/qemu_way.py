"""What an operator says of a virtual board: ``[dut.qemu]`` of ``agent.toml``."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Word = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,=+-]*$", max_length=200)]
ImagePath = Annotated[str, Meta(pattern=r"^[^,\0\r\n]*$", max_length=4096)]
"""A path without a comma: QEMU would read options behind it."""


class QemuWay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The board is a QEMU that the agent starts when its power is switched on."""

    program: Annotated[str, Meta(min_length=1)]
    machine: Word
    cpu: str = ""
    cores: Annotated[int, Meta(ge=1, le=256)] = 1
    memory: Annotated[str, Meta(pattern=r"^[0-9]+[KMG]?$")] = "256M"
    firmware: ImagePath = ""
    kernel: ImagePath = ""
    initrd: ImagePath = ""
    dtb: ImagePath = ""
    append: str = ""
    disk: ImagePath = ""
    disk_format: Literal["raw", "qcow2"] = "raw"
    disk_interface: Word = "virtio"
    fresh: Literal["run", "attempt", "never"] = "run"
    network: bool = True
    args: tuple[str, ...] = ()
