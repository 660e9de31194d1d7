"""Uploads a file by its digest as the CLI does, until it is there or is killed: F31.

python -m tests.chaos.uploader URL PATH DIGEST
"""

import asyncio
import os
import sys
from pathlib import Path

from tshrag_common import requests as r
from tshrag_common.client import open_client
from tshrag_common.errors import LabError, Unavailable
from tshrag_common.sources.upload import upload


async def main(url: str, path: Path, digest: str) -> None:
    """Say how much is stored after each piece; a controller that is away is waited for."""
    async with open_client(url, name="uploader") as client:

        async def put(digest: str, offset: int, total: int, data: bytes) -> int:
            asked = r.BlobPut(digest=digest, offset=offset, total=total, data=data)
            while True:
                try:
                    stored = (await client.blob_put(asked)).stored
                except Unavailable:
                    await asyncio.sleep(0.1)
                    continue
                os.write(1, b"%d\n" % stored)
                return stored

        await upload(path, digest, put)


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
    except LabError as error:
        sys.exit(error.line)
