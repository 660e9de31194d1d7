"""The client's requests about what was done."""

from tshrag_common.asking import Asking
from tshrag_common.audit_requests import AuditAnswer, ListAudit


class Audits(Asking):
    """Who did what to the things of the lab."""

    async def audit(self, request: ListAudit) -> AuditAnswer:
        return await self.ask("audit", request, AuditAnswer)
