"""A TCP server at the far end of tunnels: the first byte says what for. A process of its own.

``e``: all that comes goes back; anything else: it is counted, the count is said at the end.
"""

import asyncio
import socket

PIECE_BYTES = 256 << 10


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        echoes, count = await reader.read(1) == b"e", 0
        while data := await reader.read(PIECE_BYTES):
            count += len(data)
            if echoes:
                writer.write(data)
                await writer.drain()
        if not echoes:
            writer.write(str(count).encode())
    except OSError:
        return
    finally:
        writer.close()


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=PIECE_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
