"""A file system that never answers: who asks it hangs in the kernel, and no signal helps. Root.

    python -m tests.chaos.deaf_fs FOLDER

It speaks just enough of the FUSE protocol to be mounted, takes every request, and keeps silent.
A line on stdout says that it is there; at the end of stdin it lets everybody go.
"""

import ctypes
import os
import select
import struct
import sys

_IN = struct.Struct("<IIQQIIII")  # length, opcode, unique, node, uid, gid, pid, padding
_OUT = struct.Struct("<IiQ")  # length, error, unique
_INIT = 26
_INIT_OUT = struct.Struct("<IIIIHHIIHHI7I")
_VERSION = (7, 31)
_MOST_BYTES = 1 << 20


def mount(device: int, folder: str) -> None:
    """Mount a FUSE connection; raise OSError where that is not possible."""
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other"
    if libc.mount(b"deaf", folder.encode(), b"fuse", 6, options.encode()):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def init_answer(unique: int) -> bytes:
    """Return the answer to the one question that is answered."""
    body = _INIT_OUT.pack(*_VERSION, 4096, 0, 12, 9, 4096, 1, 1, 0, 0, *(0,) * 7)
    return _OUT.pack(_OUT.size + len(body), 0, unique) + body


def serve(folder: str) -> None:
    device = os.open("/dev/fuse", os.O_RDWR)
    mount(device, folder)
    while True:
        ready, _, _ = select.select([device, 0], [], [])
        if 0 in ready and not os.read(0, 4096):
            return  # the descriptor is closed: whoever waits gets an error
        if device in ready:
            request = os.read(device, _MOST_BYTES)
            _, opcode, unique, *_ = _IN.unpack_from(request)
            if opcode == _INIT:
                os.write(device, init_answer(unique))
                print("mounted", flush=True)


if __name__ == "__main__":
    serve(sys.argv[1])
