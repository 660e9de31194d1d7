"""``python -m tshrag_controller.nats_server.push STATE URL``: the accounts of a lab, pushed.

Run by ``tshrag user add`` and ``tshrag agent revoke`` after they changed the keys. It is a process
of its own so that the CLI, which is a bus client like any other, need not know what an account is;
and it needs the server only, not a controller that leads.
"""

import asyncio
import sys
from pathlib import Path

from tshrag_common.bus.connection import connect
from tshrag_common.errors import LabError
from tshrag_common.labkeys import LabKeys, load_lab
from tshrag_controller.nats_server.accounts import push_accounts

KEYS = "keys.json"
_CONNECT_S = 5.0


async def push(keys: LabKeys, url: str) -> None:
    """Give the server at `url` all accounts as `keys` want them."""
    credentials = keys.system_creds("push").text
    system = await connect(url, name="push", credentials=credentials, within_s=_CONNECT_S)
    try:
        await push_accounts(system, keys)
    finally:
        await system.close()


def main() -> None:
    """Push; an error is one line and 2 or 3, as everywhere."""
    state, url = Path(sys.argv[1]), sys.argv[2]
    try:
        asyncio.run(push(load_lab(state / KEYS), url))
    except LabError as error:
        sys.stderr.write(f"{error.line}\n")
        sys.exit(3 if error.retryable else 2)


if __name__ == "__main__":
    main()
