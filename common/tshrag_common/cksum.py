"""PURE: the checksum that every POSIX system can make: what the program `cksum` prints."""

_CRC_POLYNOMIAL = 0x04C11DB7


def cksum(data: bytes) -> int:
    """Return what POSIX ``cksum`` prints first for `data`."""
    crc, size = 0, len(data)
    for byte in data:
        crc = (crc << 8) & 0xFFFFFFFF ^ _CRC_TABLE[(crc >> 24) ^ byte]
    while size:
        crc = (crc << 8) & 0xFFFFFFFF ^ _CRC_TABLE[(crc >> 24) ^ (size & 0xFF)]
        size >>= 8
    return crc ^ 0xFFFFFFFF


def _crc_of(byte: int) -> int:
    crc = byte << 24
    for _ in range(8):
        crc = (crc << 1) ^ (_CRC_POLYNOMIAL if crc & 0x80000000 else 0)
    return crc & 0xFFFFFFFF


_CRC_TABLE = tuple(_crc_of(byte) for byte in range(256))
