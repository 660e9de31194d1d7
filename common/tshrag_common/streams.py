"""The streams of the lab and their consumers, as data; field names are those of the JetStream API.

=============  ==========================  =====================================================
LOG            the truth: frames           standbys and feeders follow; purged behind a checkpoint
EV             reports of agents           consumer ``leader``, ack_all; purged behind a checkpoint
MET            sample batches              consumers ``ingest-<part>-<node>`` of each controller
LOGS           output and console bytes    consumer ``archive-<node>`` of each controller
CHECKPOINT     where a checkpoint is   the leader reads the newest
OBJ_loads      packed loads by sha256      standard object store: the ``nats`` tool reads it
OBJ_artifacts  artifacts by sha256         the same
=============  ==========================  =====================================================

A full stream refuses (``discard: new``): the writer keeps what it has and shows it. All have a
bound and a number of consumers: -1 counts as unset there and is capped by the server.
"""

import msgspec

from tshrag_common import subjects

GIB = 1 << 30
_S = 1_000_000_000  # the API counts nanoseconds

LOG, EV, MET, LOGS = "LOG", "EV", "MET", "LOGS"
CHECKPOINT = "CHECKPOINT"
LOADS, ARTIFACTS = "loads", "artifacts"
"""Buckets of the object store; the stream of a bucket is ``OBJ_<bucket>``."""

MAX_FRAME_BYTES = 512 * 1024
MAX_BATCH_BYTES = 256 * 1024
CHUNK_BYTES = 512 * 1024


class SubjectTransform(msgspec.Struct, frozen=True, kw_only=True):
    """What the server makes of a subject when it stores a message."""

    src: str
    dest: str


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """One stream. All of it is sent: what is left out or null the server would choose."""

    name: str
    subjects: tuple[str, ...]
    max_bytes: int
    storage: str | None = "file"
    retention: str | None = "limits"
    discard: str | None = "new"
    num_replicas: int | None = 1
    max_consumers: int | None = 64
    max_msgs: int | None = -1
    max_age: int | None = 0
    max_msg_size: int | None = 1 << 20
    duplicate_window: int | None = 120 * _S
    compression: str | None = "none"
    allow_direct: bool = True
    allow_rollup_hdrs: bool = False
    subject_transform: SubjectTransform | None = None
    first_seq: int | None = None


class ConsumerConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One pull consumer; without ``durable_name`` it is gone when nobody has asked for a while."""

    name: str
    ack_policy: str
    deliver_policy: str = ""  # "all", "by_start_sequence" or "by_start_time"
    durable_name: str | None = None
    ack_wait: int | None = None
    max_ack_pending: int | None = None
    filter_subject: str | None = None
    opt_start_seq: int | None = None
    opt_start_time: str | None = None  # RFC 3339, by the clock of the server
    inactive_threshold: int | None = None
    mem_storage: bool = False
    num_replicas: int | None = None


CHECKPOINT_BYTES = 16 << 20


class StreamSizes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many bytes each stream may hold; the server reserves them all at once."""

    log: int = 2 * GIB
    ev: int = GIB
    met: int = 4 * GIB
    logs: int = 4 * GIB
    loads: int = 4 * GIB
    artifacts: int = 4 * GIB

    def within(self, total_bytes: int) -> "StreamSizes":
        """Return sizes in the same proportions; with the checkpoints at most `total_bytes`."""
        sizes = msgspec.structs.asdict(self)
        ratio = min(1.0, (total_bytes - CHECKPOINT_BYTES) / sum(sizes.values()))
        return StreamSizes(**{name: int(size * ratio) for name, size in sizes.items()})


def all_streams(sizes: StreamSizes | None = None, replicas: int = 1) -> tuple[StreamConfig, ...]:
    """Return every stream of a lab; the leader makes sure that they are there."""
    sizes = sizes or StreamSizes()
    plain = (
        StreamConfig(name=LOG, subjects=(subjects.log(),), max_bytes=sizes.log),
        StreamConfig(name=EV, subjects=(subjects.any_said("ev"),), max_bytes=sizes.ev),
        StreamConfig(
            name=MET,
            subjects=(subjects.any_said("met"),),
            max_bytes=sizes.met,
            compression="s2",
            subject_transform=SubjectTransform(
                src=subjects.any_said("met"), dest=subjects.samples_transform()
            ),
        ),
        StreamConfig(
            name=LOGS,
            subjects=(subjects.any_said("logs"),),
            max_bytes=sizes.logs,
            max_age=7 * 24 * 3600 * _S,
            compression="s2",
        ),
        StreamConfig(
            name=CHECKPOINT, subjects=(subjects.checkpoint(),), max_bytes=CHECKPOINT_BYTES
        ),
        bucket(LOADS, sizes.loads),
        bucket(ARTIFACTS, sizes.artifacts),
    )
    return tuple(msgspec.structs.replace(stream, num_replicas=replicas) for stream in plain)


def bucket(name: str, max_bytes: int) -> StreamConfig:
    """Return the stream of an object store bucket."""
    return StreamConfig(
        name=bucket_stream(name),
        subjects=(f"$O.{name}.C.>", f"$O.{name}.M.>"),
        max_bytes=max_bytes,
        allow_rollup_hdrs=True,
    )


def bucket_stream(name: str) -> str:
    return f"OBJ_{name}"


def durable(name: str, filter_subject: str | None = None) -> ConsumerConfig:
    """Return a consumer whose position the server keeps; an ack covers all before it."""
    return ConsumerConfig(
        name=name,
        durable_name=name,
        ack_policy="all",
        deliver_policy="all",
        ack_wait=30 * _S,
        max_ack_pending=20_000,
        filter_subject=filter_subject,
    )


def passing(name: str, from_seq: int, filter_subject: str | None = None) -> ConsumerConfig:
    """Return a consumer for one reader that knows its own position: no acks, in memory."""
    return ConsumerConfig(
        name=name,
        ack_policy="none",
        deliver_policy="by_start_sequence",
        opt_start_seq=max(1, from_seq),
        inactive_threshold=60 * _S,
        mem_storage=True,
        num_replicas=1,
        filter_subject=filter_subject,
    )


EV_LEADER = durable("leader")


def logs_archive(node: str) -> ConsumerConfig:
    """Return the consumer of one controller for the output."""
    return durable(f"archive-{node}")


def met_ingest(partition: int, node: str) -> ConsumerConfig:
    """Return the consumer of one controller for one partition of the samples."""
    return durable(f"ingest-{partition}-{node}", subjects.samples(partition))
