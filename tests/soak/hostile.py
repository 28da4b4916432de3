"""Clients that mean no good, or are badly broken: `python -m tests.soak.hostile PORT HTTP_PORT SEED [--without NAME]`.

A program of its own, so that its work isn't in the replies of honest clients. It attacks while the last line of its
stdin is `go`, pauses at `calm` (and says `calm` when all attacks are over), and ends with its stdin.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tests.real.raw_client import RawClient, ServerError

THREADS: Final = 2
PAUSE: Final = (0.05, 0.8)
"""Seconds between two attacks of a thread."""
HOLD: Final = (0.2, 3.0)
"""Seconds that an attack keeps what it has."""
TIMEOUT: Final = 10.0
QUEUE: Final = "hostile"
MIB: Final = 1 << 20


@dataclass(frozen=True)
class Target:
    """What is attacked, and the dice of this attacker."""

    port: int
    http_port: int
    dice: random.Random

    def connect(self, *, http: bool = False) -> socket.socket:
        """A bare connection."""
        connection = socket.create_connection(("127.0.0.1", self.http_port if http else self.port), timeout=TIMEOUT)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def client(self, wid: str = "") -> RawClient:
        """A connection with its handshake done."""
        return RawClient(self.port, hello={"wid": wid} if wid else None, timeout=TIMEOUT)

    def hold(self) -> None:
        """Let time pass."""
        time.sleep(self.dice.uniform(*HOLD))

    def bytes(self, least: float, most: float) -> int:
        """A size between two numbers of MiB, small ones more often."""
        return int(MIB * (least + (most - least) * self.dice.random() ** 2))


def job(jid: str, size: int = 0) -> bytes:
    """A legal job of about that many bytes."""
    return json.dumps({"jid": jid, "queue": QUEUE, "jobtype": "H", "args": ["x" * size]}).encode()


def jid(target: Target) -> str:
    """One that nobody else has."""
    return f"hostile-{target.dice.getrandbits(64):016x}"


def repeated(piece: bytes, size: int) -> bytes:
    """A JSON array of so many bytes, made of one element."""
    return b"[" + b",".join([piece] * (size // (len(piece) + 1))) + b"]"


def reset(connection: socket.socket) -> None:
    """End a connection with a RST."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


# the attacks ---------------------------------------------------------------------------------------------------------


def wide_hello(target: Target) -> None:
    """A HELLO of many elements, before the password would be checked."""
    with target.connect() as connection:
        connection.recv(1000)
        connection.sendall(b'HELLO {"a":' + repeated(b"[]", target.bytes(0.1, 31)) + b"}\r\n")
        connection.recv(1000)


def unfinished_hellos(target: Target) -> None:
    """Some HELLOs that don't end."""
    connections = [target.connect() for _ in range(4)]
    for connection in connections:
        connection.sendall(b'HELLO {"a":"' + b"x" * target.bytes(0.1, 20))
    target.hold()
    for connection in connections:
        connection.close()


def unfinished_line(target: Target) -> None:
    """A push whose line doesn't end, cut off with a RST."""
    with target.client() as client:
        client.socket.sendall(b'PUSH {"jid":"' + b"x" * target.bytes(0.1, 31))
        target.hold()
        reset(client.socket)


def deep(target: Target) -> None:
    """JSON of a hundred thousand levels."""
    depth = target.dice.choice((101, 5_000, 100_000))
    with target.client() as client:
        client.raw_call(
            b'PUSH {"jid":"deep-deep","jobtype":"H","queue":"hostile","args":' + b"[" * depth + b"]" * depth + b"}"
        )
        client.raw_call(b"PUSHB " + b"[" * depth)


def wide(target: Target) -> None:
    """Lines whose value takes far more memory than their text."""
    piece = target.dice.choice((b"0", b"[]", b"{}", b'{"":0}', b'"a"'))
    with target.client() as client:
        client.raw_call(
            target.dice.choice((b"PUSH ", b"PUSHB ", b"ACK ", b"MUTATE ")) + repeated(piece, target.bytes(0.1, 31))
        )


def wide_job(target: Target) -> None:
    """A legal job whose arguments are many small values."""
    with target.client() as client:
        head = f'PUSH {{"jid":"{jid(target)}","queue":"{QUEUE}","jobtype":"H","args":'.encode()
        client.raw_call(head + repeated(b"0", target.bytes(0.1, 8)) + b"}")


def large_job(target: Target) -> None:
    """A legal job that is large."""
    with target.client() as client:
        client.raw_call(b"PUSH " + job(jid(target), target.bytes(0.5, 31)))


def slow_reader(target: Target) -> None:
    """Thousands of commands, and not one reply is read."""
    with target.client() as client:
        client.socket.settimeout(1.0)
        verb = target.dice.choice((b"INFO\r\n", b"NOSUCHVERB " + b"x" * 500 + b"\r\n", b"PUSH {}\r\n"))
        with contextlib.suppress(TimeoutError):
            client.socket.sendall(verb * 3_000)
        target.hold()


def half_close(target: Target) -> None:
    """Pushes, and then the end of our direction: their replies still come."""
    with target.client() as client:
        client.socket.sendall(b"".join(b"PUSH " + job(jid(target)) + b"\n" for _ in range(50)))
        client.half_close()
        while client.socket.recv(1 << 16):
            pass


def flood(target: Target) -> None:
    """Hundreds of connections at once, most of them silent."""
    connections = []
    try:
        for number in range(300):
            connections.append(target.connect(http=number % 5 == 0))
            if number % 3 == 0:
                connections[-1].sendall(b'HELLO {"v":2}\r\n' if number % 5 else b"GET / HTTP/1.1\r\n")
        target.hold()
    finally:
        for connection in connections:
            reset(connection)


def garbage(target: Target) -> None:
    """Bytes that are no protocol, or another one."""
    kinds = (
        target.dice.randbytes(5_000),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + target.dice.randbytes(500),
        b"\r\n" * 10_000,
        b"HELLO\r\nHELLO null\r\nHELLO []\r\n",
        b"\x00" * 100_000,
    )
    with target.connect(http=target.dice.random() < 0.3) as connection:
        connection.sendall(target.dice.choice(kinds))
        connection.settimeout(1.0)
        connection.recv(1000)


def info_storm(target: Target) -> None:
    """Hundreds of INFOs without a pause."""
    with target.client() as client:
        client.socket.sendall(b"INFO\r\n" * 300)
        for _ in range(300):
            client.raw_reply()


def flush_storm(target: Target) -> None:
    """Everything in Faktory is thrown away, some times over."""
    with target.client() as client:
        for _ in range(3):
            client.raw_call(b"FLUSH")


def odd_commands(target: Target) -> None:
    """What only Faktory can answer, or nobody."""
    lines = (
        b'BEAT {"wid":"nobody"}',
        b'ACK {"jid":"never-was"}',
        b"FAIL {}",
        b'MUTATE {"cmd":"discard","target":"retries"}',
        b"QUEUE PAUSE hostile",
        b"QUEUE RESUME hostile",
        b"TRACK GET x",
        b"BATCH NEW {}",
        b'PUSH {"jid":"%s","jobtype":"H","queue":"hostile","args":[],"at":"soon"}' % jid(target).encode(),
        b'PUSH {"jid":"%s","jid":"%s","jobtype":"H","args":[]}' % (jid(target).encode(), jid(target).encode()),
        b'PUSH {"jid":"%s","jobtype":"H","queue":"hostile","args":[],"custom":{"unique_for":1}}' % jid(target).encode(),
        b"PUSHB {}",
        b"PUSHB []",
        b"push {}",
        b"\xff\xfe",
    )
    with target.client() as client:
        for line in target.dice.sample(lines, len(lines)):
            client.raw_call(line)
        client.send(b"END")


def one_worker(target: Target) -> None:
    """A worker that opens many connections at once, fetches with all, and drops them mid-command."""
    wid = f"hostile-{target.dice.randrange(1000)}"
    connections = [target.connect() for _ in range(40)]
    try:
        for connection in connections:
            connection.recv(1000)
            hello = {"v": 2, "wid": wid, "hostname": "h", "pid": 1, "labels": []}
            connection.sendall(b"HELLO " + json.dumps(hello).encode() + b"\r\nFETCH hostile\r\n")
        target.hold()
    finally:
        for connection in connections:
            reset(connection)


def mid_command(target: Target) -> None:
    """Ends in the middle of a push, of a bulk push, before the reply."""
    for data in (b'PUSH {"jid":"half', b"PUSHB [" + job(jid(target)), b"PUSH " + job(jid(target)) + b"\r\n"):
        with target.client() as client:
            client.socket.sendall(data)
            reset(client.socket)


def http_garbage(target: Target) -> None:
    """Requests that don't end, lie about their length, or are none."""
    kinds = (
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{",
        b"POST /jobs/batch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffff\r\n"
        + b"x" * 100_000,
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 10_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + target.dice.randbytes(1000),
        b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 30000000\r\n\r\n",
    )
    with target.connect(http=True) as connection:
        connection.sendall(target.dice.choice(kinds))
        target.hold()
        connection.settimeout(0.5)
        connection.recv(1000)


def http_wide(target: Target) -> None:
    """A body whose value takes far more memory than its text."""
    path = target.dice.choice((b"/jobs", b"/jobs/batch", b"/jobs/add"))
    body = repeated(target.dice.choice((b"0", b"{}", b'{"":0}')), target.bytes(0.1, 20))
    with target.connect(http=True) as connection:
        head = b"POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        connection.sendall(head % (path, len(body)) + body)
        connection.recv(1000)


Attack = Callable[[Target], None]

ATTACKS: Final[dict[str, Attack]] = {
    attack.__name__.replace("_", "-"): attack
    for attack in (
        wide_hello,
        unfinished_hellos,
        unfinished_line,
        deep,
        wide,
        wide_job,
        large_job,
        slow_reader,
        half_close,
        flood,
        garbage,
        info_storm,
        flush_storm,
        odd_commands,
        one_worker,
        mid_command,
        http_garbage,
        http_wide,
    )
}


class Attackers:
    """Threads that attack until the end, or pause."""

    def __init__(self, port: int, http_port: int, seed: int, attacks: list[Attack]) -> None:
        self._go = threading.Event()
        self._over = threading.Event()
        self._busy = 0
        self._lock = threading.Lock()
        self.done: Counter[str] = Counter()
        self._attacks = attacks
        for number in range(THREADS):
            target = Target(port, http_port, random.Random(f"{seed} {number}"))
            threading.Thread(target=self._attack, args=(target,), daemon=True).start()

    def go(self) -> None:
        """Attack."""
        self._go.set()

    def calm(self) -> None:
        """Pause; returns when the last attack is over."""
        self._go.clear()
        while self._busy:
            time.sleep(0.05)

    def _attack(self, target: Target) -> None:
        while True:
            self._go.wait()
            with self._lock:
                self._busy += 1
            try:
                if self._go.is_set():
                    attack = target.dice.choice(self._attacks)
                    self.done[attack.__name__] += 1
                    attack(target)
            except (OSError, ServerError, AssertionError, ValueError):
                pass  # closed, refused, away: what they deserve
            finally:
                with self._lock:
                    self._busy -= 1
            time.sleep(target.dice.uniform(*PAUSE))


def main() -> None:
    """Attack as stdin says."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.hostile", description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("http_port", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--without", action="append", default=[])
    options = parser.parse_args()
    chosen = [attack for name, attack in ATTACKS.items() if name not in options.without]
    attackers = Attackers(options.port, options.http_port, options.seed, chosen)
    for line in sys.stdin:
        if line.strip() == "go":
            attackers.go()
        else:
            attackers.calm()
        print(json.dumps(attackers.done), flush=True)


if __name__ == "__main__":
    main()
