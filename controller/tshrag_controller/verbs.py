"""Every verb of the one API: what it takes, and who answers. One function an area."""

from collections.abc import Mapping

from tshrag_common import (
    console_requests as cr,
    metric_requests as mr,
    requests as r,
    store_requests as sr,
)
from tshrag_common.audit_requests import ListAudit
from tshrag_common.channel_requests import OpenChannel
from tshrag_common.drill_requests import Drill
from tshrag_common.judge_requests import JudgeStored
from tshrag_common.resolve_requests import Resolve
from tshrag_controller.answers.blobs import BlobAnswers
from tshrag_controller.answers.channels import ChannelAnswers
from tshrag_controller.answers.consoles import ConsoleAnswers
from tshrag_controller.answers.data import DataAnswers
from tshrag_controller.answers.drills import DrillAnswers
from tshrag_controller.answers.judge import JudgeAnswers
from tshrag_controller.answers.lab import LabAnswers
from tshrag_controller.answers.resolve import ResolveAnswers
from tshrag_controller.answers.runs import RunAnswers
from tshrag_controller.answers.samples import SampleAnswers
from tshrag_controller.answers.tending import StoreAnswers
from tshrag_controller.intake.requests import Verb


def run_verbs(runs: RunAnswers) -> Mapping[str, Verb]:
    return {
        "submit": Verb(r.Submit, runs.submit),
        "plan": Verb(r.Submit, runs.plan),
        "cancel": Verb(r.Cancel, runs.cancel),
        "runs": Verb(r.ListRuns, runs.runs),
        "run": Verb(r.GetRun, runs.run),
        "jobs": Verb(r.ListJobs, runs.jobs),
        "why": Verb(r.Named, runs.why),
        "watch": Verb(r.Watch, runs.watch),
    }


def lab_verbs(lab: LabAnswers) -> Mapping[str, Verb]:
    return {
        "stats": Verb(r.Nothing, lab.stats),
        "health": Verb(r.Nothing, lab.health),
        "agents": Verb(r.Nothing, lab.agents),
        "duts": Verb(r.Nothing, lab.duts),
    }


def data_verbs(data: DataAnswers) -> Mapping[str, Verb]:
    return {
        "logs": Verb(r.GetLogs, data.logs),
        "metrics": Verb(mr.ListMetrics, data.metrics),
        "metric_infos": Verb(mr.ListInfos, data.infos),
        "series": Verb(mr.GetSeries, data.series),
    }


def judge_verbs(answers: JudgeAnswers) -> Mapping[str, Verb]:
    return {"judge": Verb(JudgeStored, answers.judge)}


def blob_verbs(put: BlobAnswers) -> Mapping[str, Verb]:
    return {
        "blob_has": Verb(r.BlobHas, put.has),
        "blob_put": Verb(r.BlobPut, put.put),
    }


def console_verbs(consoles: ConsoleAnswers) -> Mapping[str, Verb]:
    return {
        "console": Verb(cr.GetConsole, consoles.record),
        "console_grep": Verb(cr.GrepConsole, consoles.grep),
        "signs": Verb(cr.ListSigns, consoles.signs),
    }


def channel_verbs(channels: ChannelAnswers) -> Mapping[str, Verb]:
    return {
        "channel": Verb(OpenChannel, channels.open),
        "audit": Verb(ListAudit, channels.audit),
    }


def resolve_verbs(answers: ResolveAnswers) -> Mapping[str, Verb]:
    return {"resolve": Verb(Resolve, answers.resolve)}


def drill_verbs(drills: DrillAnswers) -> Mapping[str, Verb]:
    return {"drill": Verb(Drill, drills.drill)}


def store_verbs(samples: SampleAnswers, store: StoreAnswers) -> Mapping[str, Verb]:
    return {
        "query": Verb(sr.Query, samples.query),
        "query_file": Verb(sr.Query, samples.file),
        "query_part": Verb(sr.QueryPart, samples.part),
        "store_status": Verb(sr.StoreAbout, store.status),
        "store_do": Verb(sr.StoreDo, store.do),
    }
