"""A real Faktory with a Redis of its own: started, looked into, stalled, stopped."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.real import parts
from tests.real.polling import wait_for
from tests.real.ports import free_port
from tests.real.raw_client import RawClient

START_TIMEOUT = 20.0
"""Seconds until a Faktory must greet; one is what it takes on an idle machine."""

STOP_TIMEOUT = 15.0
"""Seconds until Faktory and its Redis must be gone."""

TRIES = 5
"""Starts with new ports before we give up: another program may take a port between our look and its bind."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """Paths of a server certificate (chain) and its key, both PEM, and of the authority that signed it."""

    chain: Path
    key: Path
    authority: Path


class RealFaktory:
    """One Faktory process.

    Args:
        password: what clients must know; None for a server that wants no password.
        tls: serve TLS with this certificate.
        port: the port to serve on; 0 chooses a free one.
        part: which of `tests.real.parts` it is: `faktory`, or an older one.

    The server keeps its port, its data and its password over `stop()` and `start()`.
    """

    def __init__(
        self, *, password: str | None = None, tls: Certificate | None = None, port: int = 0, part: str = "faktory"
    ) -> None:
        self.part = part
        self.password = password
        self.tls = tls
        self.port = port
        self.web_port = 0
        self.redis_pid = 0
        # Short on purpose: the path of the Redis socket must stay below 104 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="faktory-"))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What clients put into FAKTORY_URL."""
        return self.url_at(self.port)

    def url_at(self, port: int) -> str:
        """The URL of this server when it is reached through another local port."""
        scheme = "tcp+tls" if self.tls else "tcp"
        secret = f":{urllib.parse.quote(self.password, safe='')}@" if self.password else ""
        return f"{scheme}://{secret}localhost:{port}"

    @property
    def running(self) -> bool:
        """Whether the process is there (a stopped Redis doesn't count against it)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Starts the server and returns when it has greeted; nothing to do when it runs."""
        if self.running:
            return
        fixed = self.port
        for _ in range(TRIES):
            self.port = fixed or free_port()
            self.web_port = free_port()
            if self._try_start():
                break
        else:
            raise AssertionError(f"Faktory doesn't start, its log ends in:\n{self.log()[-2000:]}")
        section = self.redis("INFO", "server")
        self.redis_pid = int(str(section).split("process_id:")[1].split()[0])

    def stop(self) -> None:
        """Ends the server as an operator would (SIGTERM); its data stay."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Ends the server with SIGKILL. Its Redis goes too; jobs since the last snapshot may be lost."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stops and starts on the same port with the same data."""
        port = self.port
        self.stop()
        self.port = port
        self.start()

    def stall_redis(self) -> None:
        """Stops Redis in its tracks: Faktory's commands time out until `resume_redis` or `stop`."""
        os.kill(self.redis_pid, signal.SIGSTOP)

    def resume_redis(self) -> None:
        """Lets a stalled Redis go on."""
        os.kill(self.redis_pid, signal.SIGCONT)

    def dispose(self) -> None:
        """Stops the server and removes its data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def client(self, **options: Any) -> RawClient:
        """A new raw connection to this server, with its password; options as RawClient has them."""
        if self.tls is not None:
            options.setdefault("tls", ssl.create_default_context(cafile=str(self.tls.authority)))
            options.setdefault("host", "localhost")
        return RawClient(self.port, self.password, **options)

    def info(self) -> dict[str, Any]:
        """The server's INFO."""
        with self.client() as client:
            return client.info()

    def flush(self) -> None:
        """Removes all jobs and counters."""
        with self.client() as client:
            client.call("FLUSH")

    def stored(self, queue: str = "default") -> list[dict[str, Any]]:
        """All jobs that wait in a queue, as they are stored, the oldest first."""
        listed = self.redis("LRANGE", f"q:{queue}", "0", "-1")
        assert isinstance(listed, list)
        return [json.loads(str(job)) for job in reversed(listed)]

    def stored_sorted(self, name: str = "scheduled") -> list[dict[str, Any]]:
        """All jobs of a sorted set (`scheduled`, `retries`, `dead`), the earliest first."""
        listed = self.redis("ZRANGE", name, "0", "-1")
        assert isinstance(listed, list)
        return [json.loads(str(job)) for job in listed]

    def signal_worker(self, wid: str, wish: str) -> None:
        """What the Web UI's buttons do: this worker's BEATs are answered with `quiet` or `terminate`."""
        self.web("/busy", {"wid": wid, "signal": wish})

    def web(self, path: str, form: dict[str, str] | None = None) -> str:
        """A page of the Web UI; a form is posted."""
        scheme = "https" if self.tls else "http"
        request = urllib.request.Request(
            f"{scheme}://localhost:{self.web_port}{path}",
            data=None if form is None else urllib.parse.urlencode(form).encode(),
        )
        if self.password:
            token = base64.b64encode(f":{self.password}".encode()).decode()
            request.add_header("Authorization", f"Basic {token}")
        context = ssl.create_default_context(cafile=str(self.tls.authority)) if self.tls else None
        with urllib.request.urlopen(request, timeout=10, context=context) as response:
            content: bytes = response.read()
            return content.decode()

    def waiting_fetches(self) -> int:
        """How many FETCHes wait on empty queues right now."""
        section = str(self.redis("INFO", "clients"))
        return int(section.split("blocked_clients:")[1].split()[0])

    def redis(self, *command: str) -> object:
        """Runs one command on the server's own Redis: str, int, None, or a list of them."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.directory / "redis.sock"))
            words = [f"${len(word.encode())}\r\n{word}\r\n" for word in command]
            connection.sendall(f"*{len(command)}\r\n{''.join(words)}".encode())
            with connection.makefile("rb") as file:
                return _redis_reply(file.readline, file.read)

    def log(self) -> str:
        """What Faktory has logged so far, over all its starts."""
        path = self.directory / "faktory.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _try_start(self) -> bool:
        """One start; False when the process ended by itself, its ports taken perhaps."""
        config = self.directory / "config"
        config.mkdir(exist_ok=True)
        if self.tls is not None:
            shutil.copy(self.tls.chain, config / "public.cert.pem")
            shutil.copy(self.tls.key, config / "private.key.pem")
        program = parts.PARTS[self.part]()
        redis = parts.redis_server()
        hidden = ("FAKTORY_PASSWORD", "FAKTORY_URL", "FAKTORY_PROVIDER", "FAKTORY_ENV")
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        environment["PATH"] = f"{redis.parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
        if self.password:
            environment["FAKTORY_PASSWORD"] = self.password
        command = [str(program), "-b", f"localhost:{self.port}", "-w", f"localhost:{self.web_port}"]
        with (self.directory / "faktory.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, "-d", str(self.directory), "-c", str(config), "-e", "development"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        wait_for(lambda: not self.running or self._greets(), what="Faktory greets", timeout=START_TIMEOUT)
        return self.running

    def _greets(self) -> bool:
        try:
            self.client(timeout=1.0).close()
        except OSError:
            return False
        return True

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if self.redis_pid:
            _signal(self.redis_pid, signal.SIGCONT)
        process.send_signal(how)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self.redis_pid:
            # Faktory ends its Redis; after a SIGKILL that is up to us where the system doesn't do it (macOS).
            _signal(self.redis_pid, signal.SIGTERM)
            wait_for(lambda: not _signal(self.redis_pid, 0), what="Redis ends", timeout=STOP_TIMEOUT)
            self.redis_pid = 0


def _signal(pid: int, number: int) -> bool:
    """Signals a process; False when it is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _redis_reply(readline: Any, read: Any) -> object:
    """Reads one Redis reply."""
    head = readline()
    body = head[1:-2].decode()
    match head[:1]:
        case b"+":
            return str(body)
        case b":":
            return int(body)
        case b"$":
            return None if body == "-1" else read(int(body) + 2)[:-2].decode()
        case b"*":
            return [_redis_reply(readline, read) for _ in range(int(body))]
    raise AssertionError(f"Redis said {head!r}")
