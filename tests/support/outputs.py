"""A sink that keeps what a program says, for tests."""

from tshrag_agent.transport.base import Stream


class Output:
    """What came on each stream, in order."""

    def __init__(self) -> None:
        self.bytes: dict[Stream, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}

    def __call__(self, stream: Stream, data: bytes) -> None:
        self.bytes[stream] += data

    @property
    def stdout(self) -> bytes:
        return bytes(self.bytes["stdout"])

    @property
    def stderr(self) -> bytes:
        return bytes(self.bytes["stderr"])
