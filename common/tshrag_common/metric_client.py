"""What a client asks about metrics themselves."""

from tshrag_common.asking import Asking
from tshrag_common.metric_requests import InfosAnswer, ListInfos


class MetricAsking(Asking):
    """What the metrics of a run are."""

    async def metric_infos(self, request: ListInfos) -> InfosAnswer:
        return await self.ask("metric_infos", request, InfosAnswer, 120.0)
