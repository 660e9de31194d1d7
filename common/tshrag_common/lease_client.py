"""What a client asks about leases."""

from tshrag_common import lease_requests as lr
from tshrag_common.asking import Asking


class LeaseAsking(Asking):
    """Take, renew, give back, look who holds what."""

    async def lease_take(self, request: lr.LeaseTake) -> lr.LeaseAnswer:
        return await self.ask("lease_take", request, lr.LeaseAnswer, request.wait_s + 15.0)

    async def lease_renew(self, request: lr.LeaseRenew) -> lr.LeaseAnswer:
        return await self.ask("lease_renew", request, lr.LeaseAnswer)

    async def lease_release(self, name: str) -> lr.LeaseAnswer:
        return await self.ask("lease_release", lr.LeaseRelease(lease=name), lr.LeaseAnswer)

    async def leases(self, request: lr.ListLeases | None = None) -> lr.LeasesAnswer:
        return await self.ask("leases", request or lr.ListLeases(), lr.LeasesAnswer)
