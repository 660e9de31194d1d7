"""What people ask beside runs: leases, intents, holds, outlooks; wired here for one epoch."""

from collections.abc import Mapping

from tshrag_common import (
    flaky_requests as fr,
    intent_requests as ir,
    lease_requests as lr,
    requests as r,
    suspend_requests as su,
    work_requests as wk,
)
from tshrag_controller.answers.flaky import FlakyAnswers
from tshrag_controller.answers.intents import IntentAnswers
from tshrag_controller.answers.leases import LeaseAnswers
from tshrag_controller.answers.outlook import OutlookAnswers
from tshrag_controller.answers.placement import PlacementAnswers
from tshrag_controller.answers.suspend import SuspendAnswers
from tshrag_controller.answers.work import WorkAnswers
from tshrag_controller.checking import Checking
from tshrag_controller.core.lab import Lab
from tshrag_controller.durations import Durations
from tshrag_controller.engine import Engine, LabClock
from tshrag_controller.intake.requests import Verb
from tshrag_controller.log.frames import Frame
from tshrag_controller.settings import HealthTable
from tshrag_controller.store.store import Store


class PeopleSide:
    """Everything of one leader that serves people, and what it must see of the LOG."""

    def __init__(self, engine: Engine, store: Store, clock: LabClock, health: HealthTable) -> None:
        self._durations = Durations(store)
        self._leases = LeaseAnswers(engine, store, clock)
        self._intents = IntentAnswers(engine, clock)
        self._suspend = SuspendAnswers(engine)
        self._outlook = OutlookAnswers(engine, self._durations, clock)
        self._placement = PlacementAnswers(engine, store)
        self._flaky = FlakyAnswers(engine, store, clock)
        self._work = WorkAnswers(engine, store, clock)
        self.checking = Checking(engine, health)
        self.outlook = self._outlook.outlook

    async def recall(self) -> None:
        await self._durations.recall()

    def on_commit(self, lab: Lab, frame: Frame) -> None:
        """See a frame that is in the LOG; the Lab is as it is behind it."""
        self._leases.on_commit(frame)
        self._durations.on_commit(lab, frame)
        self.checking.on_commit(frame)

    def verbs(self) -> Mapping[str, Verb]:
        return {
            "lease_take": Verb(lr.LeaseTake, self._leases.take),
            "lease_reserve": Verb(lr.LeaseReserve, self._leases.reserve),
            "lease_renew": Verb(lr.LeaseRenew, self._leases.renew),
            "lease_release": Verb(lr.LeaseRelease, self._leases.release),
            "lease_share": Verb(lr.LeaseShare, self._leases.share),
            "lease_transfer": Verb(lr.LeaseTransfer, self._leases.transfer),
            "leases": Verb(lr.ListLeases, self._leases.list),
            "set_intent": Verb(ir.SetIntent, self._intents.set),
            "hold": Verb(su.Hold, self._suspend.hold),
            "let_go": Verb(su.LetGo, self._suspend.let_go),
            "reschedule": Verb(su.Reschedule, self._suspend.reschedule),
            "outlook": Verb(r.Named, self._outlook.outlook),
            "queue": Verb(r.Nothing, self._outlook.queue),
            "placement": Verb(r.Named, self._placement.placement),
            "flaky": Verb(fr.AskFlaky, self._flaky.flaky),
            "work": Verb(wk.AskWork, self._work.work),
        }
