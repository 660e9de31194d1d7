"""PURE: one end of a channel: what to send next, what has arrived, who may send how much.

Pieces are numbered. What the other end has not acknowledged is kept and sent again when it asks
(go back to the first that is missing): so a message that the bus has lost, or brought twice or
late, is no gap in the bytes. Credit is in bytes and cumulative: the receiver says how many it
takes in all, one window ahead of what was consumed, so that neither end ever holds more than that.
"""

from collections import deque

from tshrag_common.channel.frames import Frame, Over, Piece, PieceKind, State
from tshrag_common.errors import ErrorReport

WINDOW_BYTES = 1 << 20
PIECE_BYTES = 64 << 10
"""What one message carries: small enough that a keystroke never waits long behind it."""

_COST_BYTES = 64
"""What a piece counts beside its data, so that many empty ones have a price too."""


class Flow:
    """The state of one end. Nothing here waits: frames go in and come out."""

    def __init__(self, window_bytes: int = WINDOW_BYTES) -> None:
        self._window = window_bytes
        self._kept: deque[tuple[Piece, int]] = deque()  # not acknowledged; with its end in bytes
        self._next = 0  # index of the piece that is to be sent next
        self.pushed = self._acked = self._highest = 0  # numbers of pieces
        self._pushed_bytes = self._acked_bytes = 0
        self._may_send = window_bytes  # both ends begin with the same window
        self._inbox: deque[Piece] = deque()
        self._received = 0
        self._received_bytes = self._consumed_bytes = 0
        self._told_received, self._told_limit = 0, window_bytes
        self._owes_state = self._wants_again = self._asks = False
        self._missing_at = -1  # what was asked for again, so that it is asked for once
        self.over: Over | None = None
        self.finished = False  # `finish` was called
        self.resent = 0

    # what this end says

    def push(self, kind: PieceKind, data: bytes = b"") -> None:
        """Queue one piece, of at most `PIECE_BYTES`; after the end there is none."""
        if self.finished:
            raise ValueError("a piece behind the end")
        self.finished = kind == "end"
        self.pushed += 1
        self._pushed_bytes += len(data) + _COST_BYTES
        self._kept.append((Piece(kind, self.pushed, data), self._pushed_bytes))

    @property
    def kept_bytes(self) -> int:
        """Return how much is queued or on its way: above a window nobody should push more."""
        return self._pushed_bytes - self._acked_bytes

    @property
    def has_room(self) -> bool:
        return self.kept_bytes < self._window

    @property
    def all_acked(self) -> bool:
        return not self._kept

    def next_frame(self) -> Frame | None:
        """Return what is to be sent now; None: nothing, or no credit for it."""
        if self._owes_state:
            return self._state()
        if self._next < len(self._kept):
            piece, end = self._kept[self._next]
            if end <= self._may_send:
                self._next += 1
                self._highest = max(self._highest, piece.seq)
                return piece
        return None

    def parting(self) -> Frame | None:
        """Return what acknowledges all that has come, before this end closes; None: it is known."""
        return self._state() if self._told_received != self._received else None

    def ask(self) -> None:
        """Let the next frame tell how far this end is, and ask the other one."""
        self._owes_state = self._asks = True

    def _state(self) -> State:
        self._owes_state = False
        self._told_received = self._received
        self._told_limit = self._consumed_bytes + self._window
        again, self._wants_again = self._wants_again, False
        asks, self._asks = self._asks, False
        return State(
            sent=self._acked + self._next,
            received=self._received,
            limit=self._told_limit,
            wants_answer=asks,
            wants_again=again,
        )

    @property
    def is_settled(self) -> bool:
        """Tell whether the other end knows all that is here, and we know it."""
        return not self._kept and self._told_received == self._received

    def rewind(self) -> None:
        """Send all that is not acknowledged again: the connection was lost."""
        self.resent += self._next
        self._next = 0

    # what the other end says

    def hear(self, frame: Frame) -> None:
        match frame:
            case Piece():
                self._hear_piece(frame)
            case State():
                self._hear_state(frame)
            case Over():
                self._hear_over(frame)

    def take(self) -> Piece | None:
        """Return the next piece that has arrived, in order, each once."""
        if not self._inbox:
            return None
        piece = self._inbox.popleft()
        self._consumed_bytes += len(piece.data) + _COST_BYTES
        is_end = piece.kind == "end"  # who has said it waits for this
        if is_end or self._consumed_bytes + self._window - self._told_limit >= self._window // 4:
            self._owes_state = True
        return piece

    @property
    def has_pieces(self) -> bool:
        return bool(self._inbox)

    def _hear_piece(self, piece: Piece) -> None:
        if piece.seq <= self._received:
            return  # it came before
        if piece.seq > self._received + 1:
            self._ask_again()
            return
        self._received_bytes += len(piece.data) + _COST_BYTES
        if self._received_bytes > self._consumed_bytes + self._window:
            what = "the other end sends more than it may"
            self.over = self.over or Over(0, ErrorReport(code="channel_flood", message=what))
            return
        self._received = piece.seq
        self._inbox.append(piece)

    def _hear_state(self, state: State) -> None:
        self._take_ack(state.received)
        self._may_send = max(self._may_send, state.limit)
        if state.wants_again:
            self.rewind()
        if state.sent > self._received:
            self._missing_at = -1  # it was asked for, and that has been lost too
            self._ask_again()
        if state.wants_answer:
            self._owes_state = True

    def _hear_over(self, over: Over) -> None:
        if over.error is None and over.sent > self._received:
            cut = ErrorReport(
                code="channel_lost", message="the end came before all bytes did", retryable=True
            )
            over = Over(over.sent, cut)
        self.over = self.over or over

    def _take_ack(self, received: int) -> None:
        while self._kept and self._kept[0][0].seq <= min(received, self._highest):
            _, end = self._kept.popleft()
            self._acked += 1
            self._acked_bytes = end
            self._next = max(0, self._next - 1)

    def _ask_again(self) -> None:
        if self._missing_at != self._received:
            self._missing_at = self._received
            self._owes_state = self._wants_again = True
