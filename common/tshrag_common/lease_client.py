"""What a client asks about leases, and how it holds one while it works."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import msgspec

from tshrag_common import ids, lease_requests as lr
from tshrag_common.asking import Asking
from tshrag_common.errors import LabError, Unavailable

FIRST_S = 0.2
"""The first request only finds out where in the line one stands."""
LINE_S = 20.0
"""How long one request waits in the line; then it is asked again."""


def new_lease() -> str:
    """Return an id for a lease that is to be taken."""
    return "lease-" + ids.ulid(time.time_ns() // 1_000_000, secrets.randbits(80))


class LeaseAsking(Asking):
    """Take, renew, give back, look who holds what."""

    async def lease_take(self, request: lr.LeaseTake) -> lr.LeaseAnswer:
        return await self.ask("lease_take", request, lr.LeaseAnswer, request.wait_s + 15.0)

    async def lease_wait(self, request: lr.LeaseTake) -> AsyncIterator[lr.LeaseAnswer]:
        """Yield the place in the line, each time that it was asked again, and last the lease."""
        asked = msgspec.structs.replace(request, wait_s=FIRST_S)
        while True:
            try:
                answer = await self.lease_take(asked)
            except Unavailable as error:  # another controller leads soon; the place is kept
                if error.code not in ("deadline_exceeded", "no_controller", "busy"):
                    raise
                await asyncio.sleep(1.0)
                continue
            yield answer
            asked = msgspec.structs.replace(request, wait_s=LINE_S)
            if answer.state != "waiting":
                return

    async def lease_reserve(self, request: lr.LeaseReserve) -> lr.LeaseAnswer:
        return await self.ask("lease_reserve", request, lr.LeaseAnswer)

    async def lease_renew(self, request: lr.LeaseRenew) -> lr.LeaseAnswer:
        return await self.ask("lease_renew", request, lr.LeaseAnswer)

    async def lease_release(self, name: str) -> lr.LeaseAnswer:
        return await self.ask("lease_release", lr.LeaseRelease(lease=name), lr.LeaseAnswer)

    async def lease_share(self, request: lr.LeaseShare) -> lr.LeaseAnswer:
        return await self.ask("lease_share", request, lr.LeaseAnswer)

    async def lease_transfer(self, request: lr.LeaseTransfer) -> lr.LeaseAnswer:
        return await self.ask("lease_transfer", request, lr.LeaseAnswer)

    async def leases(self, request: lr.ListLeases | None = None) -> lr.LeasesAnswer:
        return await self.ask("leases", request or lr.ListLeases(), lr.LeasesAnswer)

    @asynccontextmanager
    async def kept(self, lease: lr.LeaseAnswer, for_s: float) -> AsyncIterator[None]:
        """Renew a lease while the block lasts, and give it back behind it."""
        # a task of its own: a group would wrap the errors of whoever works here
        renewing = asyncio.get_running_loop().create_task(
            self._renew(lease.lease, for_s), name="renew"
        )
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.wait([renewing])
            with suppress(LabError):  # it may be over, or somebody else's by now
                await self.lease_release(lease.lease)

    async def _renew(self, name: str, for_s: float) -> None:
        while True:
            await asyncio.sleep(for_s / 3)
            with suppress(Unavailable):  # the next one may get through
                await self.lease_renew(lr.LeaseRenew(lease=name, for_s=for_s))
