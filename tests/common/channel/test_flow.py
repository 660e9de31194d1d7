"""Two ends over a bus that loses, repeats and delays messages: what was pushed arrives, once."""

import random

from hypothesis import given, settings, strategies as st

from tshrag_common.channel.flow import Flow
from tshrag_common.channel.frames import Over, Piece, State, decoded, encoded

WINDOW = 4096
pieces = st.lists(
    st.tuples(st.sampled_from(("data", "word")), st.binary(max_size=700)), max_size=40
)


class Link:
    """Two flows, and a bus between them that does what chance says until it is `sound`."""

    def __init__(self, seed: int, loss: float) -> None:
        self.ends = (Flow(WINDOW), Flow(WINDOW))
        self.chance, self.loss = random.Random(seed), loss
        self.sound = False
        self.ways: tuple[list[bytes], list[bytes]] = ([], [])
        self.got: tuple[list[Piece], list[Piece]] = ([], [])

    def send(self, side: int) -> None:
        frame = self.ends[side].next_frame()
        if frame is None:
            return
        data = encoded(frame)
        if self.sound or self.chance.random() >= self.loss:
            self.ways[side].append(data)
            if not self.sound and self.chance.random() < self.loss:
                self.ways[side].append(data)

    def deliver(self, side: int) -> None:
        way = self.ways[side]
        if way:
            late = not self.sound and self.chance.random() < self.loss
            data = way.pop(self.chance.randrange(len(way)) if late else 0)
            self.ends[1 - side].hear(decoded(data))

    def take(self, side: int) -> None:
        piece = self.ends[side].take()
        if piece is not None:
            self.got[side].append(piece)

    def step(self) -> None:
        side = self.chance.randrange(2)
        self.chance.choice((self.send, self.send, self.deliver, self.deliver, self.take))(side)
        if self.chance.random() < 0.02:
            self.ends[side].ask()

    def settle(self, rounds: int = 400) -> None:
        """Let a sound bus bring everything to its end, as the ticks of a hub would."""
        self.sound = True
        for _ in range(rounds):
            for side in (0, 1):
                self.ends[side].ask()
                for _ in range(20):
                    self.send(side)
                    self.deliver(side)
                    self.take(side)


@settings(max_examples=150, deadline=None)
@given(pieces, pieces, st.integers(0, 1 << 30), st.sampled_from((0.0, 0.1, 0.5)))
def test_what_is_pushed_arrives_once_and_in_order(
    ours: list[tuple[str, bytes]], theirs: list[tuple[str, bytes]], seed: int, loss: float
) -> None:
    link = Link(seed, loss)
    waiting = [list(ours), list(theirs)]
    for _ in range(600):
        for side in (0, 1):
            end = link.ends[side]
            if waiting[side] and end.has_room:
                kind, data = waiting[side].pop(0)
                end.push(kind, data)  # type: ignore[arg-type]  # a word in tests
            assert end.kept_bytes <= WINDOW + 800
        link.step()
    for side in (0, 1):
        for kind, data in waiting[side]:
            link.ends[side].push(kind, data)  # type: ignore[arg-type]
        link.ends[side].push("end")
    link.settle()
    for side, said in ((0, theirs), (1, ours)):
        assert [(piece.kind, piece.data) for piece in link.got[side]] == [*said, ("end", b"")]
        assert link.ends[side].all_acked
        assert link.ends[side].over is None


@given(st.integers(1, 40))
def test_nobody_sends_beyond_the_window_of_a_reader_that_sleeps(count: int) -> None:
    sender, reader = Flow(WINDOW), Flow(WINDOW)
    for _ in range(count):
        sender.push("data", b"x" * 500)
    sent = 0
    while (frame := sender.next_frame()) is not None:
        reader.hear(frame)
        sent += 564
    assert sent <= WINDOW
    assert reader.over is None
    assert reader.has_pieces


def test_who_sends_more_than_he_may_ends_the_channel() -> None:
    reader = Flow(WINDOW)
    for seq in range(1, 20):
        reader.hear(Piece("data", seq, b"x" * 500))
    assert reader.over is not None
    assert reader.over.error is not None
    assert reader.over.error.code == "channel_flood"


def test_an_end_that_overtakes_lost_bytes_is_no_silent_end() -> None:
    reader = Flow(WINDOW)
    reader.hear(Piece("data", 1, b"x"))
    reader.hear(Over(3))
    assert reader.over is not None
    assert reader.over.error is not None
    assert reader.over.error.code == "channel_lost"


def test_an_acknowledgement_of_what_was_never_sent_frees_nothing() -> None:
    flow = Flow(WINDOW)
    flow.push("data", b"x")
    flow.hear(State(sent=0, received=10, limit=WINDOW))
    assert not flow.all_acked
    assert flow.next_frame() == Piece("data", 1, b"x")
