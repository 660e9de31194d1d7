"""A job of `bench_gangs`: comes to barriers over its socket, and prints what each took in ms."""

import json
import os
import socket
import sys
import time

COUNT = int(sys.argv[1])


def main() -> None:
    took: list[float] = []
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(os.environ["TSHRAG_SYNC"])
        lines = link.makefile("rb")
        for number in range(COUNT + 5):  # the first ones warm up
            ask = {"do": "barrier", "call": f"{number}", "name": "b", "timeout_s": 60}
            began = time.perf_counter()
            link.sendall(json.dumps(ask).encode() + b"\n")
            answer = json.loads(lines.readline())
            took.append(1e3 * (time.perf_counter() - began))
            if "ok" not in answer:
                raise SystemExit(answer["message"])
    print(json.dumps(took[5:]))


if __name__ == "__main__":
    main()
