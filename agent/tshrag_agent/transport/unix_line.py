"""A serial line that is a UNIX socket: ``unix:///path``, as QEMU and ser2net make one."""

import asyncio
import os
from urllib.parse import unquote, urlsplit

from tshrag_agent.transport.base import TransportFailed
from tshrag_agent.transport.line import Line, LineSettings, Lost, Received, TcpLine, reason_of


async def open_unix(settings: LineSettings, received: Received, lost: Lost) -> Line:
    """Open the socket; its folder is opened first, for an address holds 107 bytes only.

    Raises:
        TransportFailed: serial_missing.

    """
    folder, name = os.path.split(unquote(urlsplit(settings.url).path))
    try:
        fd = os.open(folder or "/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _transport, line = await asyncio.get_running_loop().create_unix_connection(
                lambda: TcpLine(settings.url, received, lost), f"/proc/self/fd/{fd}/{name}"
            )
        finally:
            os.close(fd)
    except (OSError, ValueError) as error:
        what = reason_of(error) if isinstance(error, OSError) else str(error)
        raise TransportFailed("serial_missing", settings.url, what) from None
    return line
