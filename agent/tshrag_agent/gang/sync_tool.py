"""``tshrag-sync``: what a job of a gang says to the others. A program of the standard library only.

It is executed as a file, without the site of its Python: nothing of ours may be imported here. It
asks the agent over the socket ``$TSHRAG_SYNC``, and asks again, under the same name, when the agent
is started anew in the middle. The agent itself reads and answers with it what is asked on a DUT.
"""

import argparse
import binascii
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

PASSED, USAGE, UNAVAILABLE, ENDED, LATE = 0, 2, 3, 4, 5
_CODES = {
    "sync_timeout": LATE,
    "sync_mate_ended": ENDED,
    "sync_full": LATE,
    "storage_full": UNAVAILABLE,
}
_AWAY_S = 600.0
"""Without an agent it gives up after so long, where it was given no time."""
_AGAIN_S = 0.2
_MARGIN_S = 5.0
VALUE_BYTES = 64 << 10

_EPILOG = """\
exit codes: 0 done; 2 usage or refused; 3 no gang, or no agent; 4 one of the others has ended;
5 timed out. Without --timeout a call waits as long as the job may take.

  tshrag-sync barrier ready --timeout 60
  tshrag-sync send near port 5201
  port=$(tshrag-sync recv port --from far)
"""


def main(argv: list[str] | None = None) -> int:
    """Do what the command line says; return the exit code."""
    args = parser().parse_args(argv)
    path = os.environ.get("TSHRAG_SYNC", "")
    if not path:
        return _fail("sync_no_gang", "TSHRAG_SYNC is not set: this job is in no gang")
    try:
        ask = ask_of(args, _value(args.value) if args.do == "send" else b"")
        answer = _call(path, ask, args.timeout)
    except OSError as error:
        return _fail("sync_agent", f"no answer from the agent: {error}")
    except ValueError as error:
        _fail("usage", str(error))
        return USAGE
    if "code" in answer:
        _fail(answer["code"], answer["message"])
        return code_of(answer)
    return _show(args, answer)


def code_of(answer: dict[str, Any]) -> int:
    """Return the exit code of a call."""
    return _CODES.get(answer["code"], USAGE) if "code" in answer else PASSED


def parser() -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    about = "Barriers and small messages between the jobs of a gang."
    parser = argparse.ArgumentParser("tshrag-sync", None, about, _EPILOG, formatter_class=raw)
    verbs = parser.add_subparsers(dest="do", required=True, metavar="VERB")
    name = "letters, digits and ._:- (at most 64)"
    barrier = _verb(verbs, "barrier", "wait until all have come to it; a name may be used again")
    barrier.add_argument("name", metavar="NAME", help=name)
    barrier.add_argument("--roles", default="", help="wait for these only, with commas")
    send = _verb(verbs, "send", "send a message; it is kept until it is received")
    send.add_argument("to", metavar="ROLE|all", help="whom; several with commas")
    send.add_argument("name", metavar="KEY", help=name)
    send.add_argument("value", metavar="VALUE|@FILE", help="at most 64 KiB; @- is standard input")
    recv = _verb(verbs, "recv", "take the oldest message with a key, and print it")
    recv.add_argument("name", metavar="KEY", help=name)
    recv.add_argument("--from", dest="roles", default="", metavar="ROLE", help="of these only")
    recv.add_argument("--to", metavar="FILE", help="write it there, byte by byte")
    wait = _verb(verbs, "wait", "take a message with a key of every other role: ROLE VALUE a line")
    wait.add_argument("name", metavar="KEY", help=name)
    wait.add_argument("--from", dest="roles", default="", metavar="ROLES", help="of these only")
    roles = _verb(verbs, "roles", "who is who: role, host, DUT, address, state")
    roles.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _verb(verbs: Any, name: str, what: str) -> argparse.ArgumentParser:
    about = what[0].upper() + what[1:] + "."
    verb: argparse.ArgumentParser = verbs.add_parser(name, help=what, description=about)
    text = "how long to wait at most: seconds, or 500ms, 30s, 5m, 1h"
    verb.add_argument("--timeout", type=_seconds, metavar="TIME", help=text)
    return verb


def _seconds(text: str) -> float:
    for unit, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0)):
        if text.endswith(unit):
            return max(0.0, float(text[: -len(unit)]) * factor)
    return max(0.0, float(text))


def ask_of(args: argparse.Namespace, value: bytes) -> dict[str, Any]:
    """Return what to ask the agent for; `value` is that of a message to send."""
    ask: dict[str, object] = {"do": args.do, "call": os.urandom(12).hex()}
    if args.do != "roles":
        ask["name"] = args.name
    named = getattr(args, "to", None) if args.do == "send" else getattr(args, "roles", "")
    if named:
        ask["roles"] = [role for role in str(named).split(",") if role]
    if args.do == "send":
        ask["value"] = binascii.b2a_base64(value, newline=False).decode()
    return ask


def _value(text: str) -> bytes:
    if not text.startswith("@"):
        data = os.fsencode(text)
    elif text == "@-":
        data = sys.stdin.buffer.read(VALUE_BYTES + 1)
    else:
        with Path(text[1:]).open("rb") as file:
            data = file.read(VALUE_BYTES + 1)
    if len(data) > VALUE_BYTES:
        raise ValueError(f"a message holds at most {VALUE_BYTES} bytes; send a path, or less")
    return data


def _call(path: str, ask: dict[str, Any], timeout_s: float | None) -> dict[str, Any]:
    """Ask until there is an answer: over a new connection where one was lost."""
    now = time.monotonic()
    ends = now + timeout_s if timeout_s is not None else None
    gives_up = now + (_AWAY_S if timeout_s is None else timeout_s + _MARGIN_S)
    while True:
        if ends is not None:
            ask["timeout_s"] = max(0.0, ends - time.monotonic())
        try:
            return _asked(path, ask, ends)
        except (ConnectionError, FileNotFoundError, EOFError) as error:
            if time.monotonic() > gives_up:
                raise OSError(str(error)) from error
        if ends is None:  # while there is an agent it may take as long as the job
            gives_up = max(gives_up, time.monotonic())
        time.sleep(_AGAIN_S)


def _asked(path: str, ask: dict[str, Any], ends: float | None) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as link:
        if ends is not None:
            link.settimeout(max(0.0, ends - time.monotonic()) + _MARGIN_S)
        link.connect(path)
        link.sendall(json.dumps(ask).encode() + b"\n")
        said = b""
        while not said.endswith(b"\n"):
            piece = link.recv(1 << 16)
            if not piece:
                raise EOFError("the agent went away")
            said += piece
    answer: dict[str, object] = json.loads(said)
    return answer


def _show(args: argparse.Namespace, answer: dict[str, Any]) -> int:
    """Print what was asked for, or write it to the file that is named."""
    said = shown(args, answer)
    if args.do == "recv" and args.to:
        Path(args.to).write_bytes(said)
    else:
        sys.stdout.buffer.write(said)
        sys.stdout.buffer.flush()
    return PASSED


def shown(args: argparse.Namespace, answer: dict[str, Any]) -> bytes:
    """Return what was asked for, as it is printed."""
    if args.do == "recv":
        value = binascii.a2b_base64(answer["messages"][0]["value"])
        return value if args.to or value.endswith(b"\n") else value + b"\n"
    if args.do == "wait":
        found = ((os.fsencode(each["role"]), each["value"]) for each in answer["messages"])
        return b"".join(role + b" " + binascii.a2b_base64(value) + b"\n" for role, value in found)
    if args.do == "roles":
        rows = answer["roles"]
        return (json.dumps(rows, indent=2) if args.json else _table(rows)).encode() + b"\n"
    return b""


def _table(rows: list[dict[str, str]]) -> str:
    heads = ("role", "state", "host", "dut", "address", "job")
    cells = [heads, *([row.get(head, "") or "-" for head in heads] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in cells)
    return "\n".join("  ".join(row).rstrip() for row in padded)


def line_of(code: object, message: object) -> str:
    """Return what went wrong, as it is printed."""
    return f"tshrag-sync: {code}: {message}\n"


def _fail(code: object, message: object) -> int:
    sys.stderr.write(line_of(code, message))
    return UNAVAILABLE


if __name__ == "__main__":
    sys.exit(main())
