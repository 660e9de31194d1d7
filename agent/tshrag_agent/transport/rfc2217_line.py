"""A serial line behind RFC 2217 (``rfc2217://host:port``), as ser2net and others speak it.

The port is set as the settings say, and each order must be answered with the value that was asked
for: a line that is set otherwise is not opened. Only DTR and RTS are not insisted on while they
are to be on, for many a port has none.
"""

import asyncio

from tshrag_agent.transport.base import TransportCode, TransportFailed
from tshrag_agent.transport.line import LineSettings, Lost, Received, TcpLine, open_tcp
from tshrag_common import rfc2217 as r

ANSWER_S = 5.0
MODEM_S = 1.0
_HELLO = (
    (r.WILL, r.COM_PORT),
    (r.WILL, r.BINARY),
    (r.DO, r.BINARY),
    (r.DO, r.SGA),
    (r.WILL, r.SGA),
)
_NAMES = {r.BAUD: "speed", r.DATA: "data bits", r.PARITY: "parity", r.STOP: "stop bits"}


class Rfc2217Line:
    """The client's side; ``begin`` once before anything else."""

    def __init__(self, settings: LineSettings, received: Received, lost: Lost) -> None:
        self._url, self._received, self._lost = settings.url, received, lost
        self._reader = r.TelnetReader()
        self._agreed: set[tuple[int, int]] = set(_HELLO)
        self._speaks: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._answer: tuple[int, asyncio.Future[bytes]] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._turn = asyncio.Lock()
        self._tcp: TcpLine | None = None

    async def begin(self, settings: LineSettings) -> None:
        """Connect, agree on the protocol, set the port.

        Raises:
            TransportFailed: ``serial_missing``.

        """
        self._tcp = await open_tcp(settings, self._heard, self._over)
        try:
            await self._send(b"".join(r.negotiation(*each) for each in _HELLO))
            await self._agree()
            await self._set(settings.state, "serial_missing")
        except BaseException:
            self.close()
            raise

    async def write(self, data: bytes) -> None:
        await self._may_write.wait()
        await self._send(r.escaped(data))

    async def send_break(self, duration_s: float) -> None:
        async with self._turn:
            await self._send(r.order(r.CONTROL, bytes((r.BREAK_ON,))))
            try:
                await asyncio.sleep(duration_s)
            finally:
                await self._send(r.order(r.CONTROL, bytes((r.BREAK_OFF,))))

    async def configure(self, settings: LineSettings) -> None:
        await self._set(settings.state, "serial_lost")

    def close(self) -> None:
        if self._tcp is not None:
            self._tcp.close()

    async def _agree(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                speaks = await self._speaks
        except TimeoutError:
            speaks = False
        if not speaks:
            fix = "use socket:// for raw TCP"
            raise TransportFailed("serial_missing", self._url, "it does not speak RFC 2217", fix)

    async def _set(self, state: r.PortState, code: TransportCode) -> None:
        async with self._turn:
            for number, value in r.orders_of(state).items():
                answer = await self._ask(number, value, ANSWER_S)
                if answer != value:
                    name = _NAMES.get(number, "flow control")
                    got = int.from_bytes(answer, "big") if answer else "no answer"
                    what = f"{name}: asked for {int.from_bytes(value, 'big')}, got {got}"
                    raise TransportFailed(code, self._url, what, "see the settings of the server")
            for is_on, value in zip((state.dtr, state.rts), r.modem_orders_of(state), strict=True):
                if await self._ask(r.CONTROL, value, MODEM_S) != value and not is_on:
                    what = "DTR or RTS cannot be switched off"
                    raise TransportFailed(code, self._url, what, "leave out dtr and rts")

    async def _ask(self, number: int, value: bytes, within_s: float) -> bytes:
        """Give an order and return its answer; empty where none comes."""
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answer = (number + r.ANSWER, answer)
        try:
            async with asyncio.timeout(within_s):
                await self._send(r.order(number, value))
                return await answer
        except TimeoutError:
            return b""
        finally:
            self._answer = None

    async def _send(self, data: bytes) -> None:
        if self._tcp is None:
            raise TransportFailed("serial_lost", self._url, "the connection is closed")
        await self._tcp.write(data)

    def _heard(self, data: bytes) -> None:
        for word in self._reader.feed(data):
            match word:
                case bytes():
                    self._received(word)
                case r.Negotiated(verb=verb, option=option):
                    self._negotiate(verb, option)
                case r.PortOrder(number=number, value=value):
                    self._told(number, value)
                case _:
                    pass

    def _told(self, number: int, value: bytes) -> None:
        if number == r.SUSPEND + r.ANSWER:
            self._may_write.clear()
        elif number == r.RESUME + r.ANSWER:
            self._may_write.set()
        elif self._answer is not None and number == self._answer[0]:
            self._answer[1].set_result(value)
            self._answer = None

    def _negotiate(self, verb: int, option: int) -> None:
        """Agree or refuse, once each."""
        if option == r.COM_PORT and verb in (r.DO, r.DONT):
            if not self._speaks.done():
                self._speaks.set_result(verb == r.DO)
            return
        if verb == r.DO:
            said = r.WILL if option in (r.BINARY, r.SGA) else r.WONT
        elif verb == r.WILL:
            said = r.DO if option in (r.BINARY, r.SGA, r.ECHO) else r.DONT
        else:
            return
        if (said, option) not in self._agreed and self._tcp is not None:
            self._agreed.add((said, option))
            self._tcp.send(r.negotiation(said, option))

    def _over(self, reason: str) -> None:
        self._may_write.set()
        if not self._speaks.done():
            self._speaks.set_result(False)
        self._lost(reason)


async def open_rfc2217(settings: LineSettings, received: Received, lost: Lost) -> Rfc2217Line:
    """Open the port; `lost` is told of its end only once it was open.

    Raises:
        TransportFailed: ``serial_missing``.

    """
    ended = list[str]()
    is_open = False

    def over(reason: str) -> None:
        if is_open:
            lost(reason)
        else:
            ended.append(reason)

    line = Rfc2217Line(settings, received, over)
    await line.begin(settings)
    is_open = True
    if ended:
        raise TransportFailed("serial_missing", settings.url, ended[0])
    return line
