"""What a client asks to have judged again."""

from tshrag_common.asking import Asking
from tshrag_common.judge_requests import JudgedStored, JudgeStored


class Judges(Asking):
    """Criteria against runs that are stored."""

    async def judge(self, request: JudgeStored) -> JudgedStored:
        return await self.ask("judge", request, JudgedStored, 120.0)
