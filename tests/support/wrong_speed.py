"""What a UART makes of text that comes at another speed than it was set to: real garbage."""


def misread(data: bytes, sent_baud: int, read_baud: int) -> bytes:
    """Return what a receiver at `read_baud` hands on of `data`, sent with 8 bits and one stop bit.

    A frame without its stop bit is handed on as NUL, as Linux does for a tty that marks nothing.
    """
    levels: list[int] = []
    for byte in data:
        levels += [0, *((byte >> bit) & 1 for bit in range(8)), 1]
    levels += [1] * 20
    ratio = sent_baud / read_baud  # bits of the sender in one of the receiver

    def level(at: float) -> int:
        return levels[min(int(at), len(levels) - 1)]

    got, at = bytearray(), 0.0
    while at < len(levels):
        if level(at):
            at += 0.25
            continue
        bits = [level(at + (number + 1.5) * ratio) for number in range(9)]
        got.append(sum(bit << place for place, bit in enumerate(bits[:8])) if bits[8] else 0)
        at += 9.5 * ratio
        while at < len(levels) and not level(at) and not bits[8]:
            at += 0.25  # a break, or a frame that did not end: wait for the line to rest
    return bytes(got)
