"""Plays the kubelet: runs the pods of our manifests as processes of this machine, as the YAML has them.

From the manifest come: image, command and arguments, environment (Secrets included), volumes, ports, probes, hooks,
restart policies, order of start, grace period. What an image adds (entry point, environment) comes from its Dockerfile.

What is different here, and nothing else:
*   a path below a mount becomes a path below the volume's directory, and `/app/` the directory of the examples;
*   a port becomes a free one, since all pods share one loopback, and `0.0.0.0` becomes 127.0.0.1; a sidecar whose
    environment leaves the port of its local endpoint to the default is told the free one;
*   `faktory-sidecar` and `python3` are the ones of this checkout;
*   probes come `HURRY` times as often as the manifest says; waits of the kubelet's own (back-off) are left out;
*   users, capabilities and read-only roots are not applied: the test of the image does that.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tests.deploy.images import Image, image_named
from tests.real.polling import wait_for
from tests.real.ports import free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "deploy" / "examples"
HURRY = 5.0
STEP = 0.02
"""Seconds between two looks at a pod."""
MINIMUM_GRACE = 2.0
"""Seconds that a container has after SIGTERM even when its pod's time is over, as the kubelet has it."""

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a container: `started`, `startup probe passed`, `SIGTERM`, `exited 0`, …"""

    when: float
    container: str
    what: str


@dataclass(slots=True)
class Cluster:
    """What outlives pods: Secrets and the volumes of claims.

    Args:
        directory: where volumes and logs go.
        secrets: name -> key -> value.
    """

    directory: Path
    secrets: dict[str, dict[str, str]] = field(default_factory=dict)

    def claim(self, name: str) -> Path:
        """The directory behind a PersistentVolumeClaim, the same for every pod that names it."""
        return _made(self.directory / "claims" / name)


@dataclass(slots=True)
class Probing:
    """The state of one probe of one run of a container."""

    spec: Manifest
    due: float
    failures: int = 0

    @property
    def period(self) -> float:
        """Seconds between two tries, hurried."""
        return float(self.spec.get("periodSeconds", 10)) / HURRY

    @property
    def exhausted(self) -> bool:
        """Whether it failed as often as it may."""
        return self.failures >= int(self.spec.get("failureThreshold", 3))


class Container:
    """One container of a pod over all its runs."""

    def __init__(self, pod: Pod, spec: Manifest, *, sidecar: bool) -> None:
        self.pod = pod
        self.spec = spec
        self.name: str = spec["name"]
        self.sidecar = sidecar
        self.image: Image = image_named(spec["image"])
        self.runs = 0
        self.started_up = False
        self.ready = False
        self.exit_codes: list[int] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._probes: dict[str, Probing] = {}

    @property
    def running(self) -> bool:
        """Whether it has a process."""
        return self.process is not None

    @property
    def log(self) -> str:
        """Its output over all runs, stdout and stderr together."""
        return self._log_path.read_text(errors="replace") if self._log_path.exists() else ""

    @property
    def _log_path(self) -> Path:
        return self.pod.directory / f"{self.name}.log"

    @property
    def command(self) -> list[str]:
        """The command line as this machine runs it."""
        entry = self.spec.get("command", self.image.entrypoint)
        default = [] if "command" in self.spec else self.image.command
        return self.local([*entry, *self.spec.get("args", default)])

    @property
    def environment(self) -> dict[str, str]:
        """Exactly what the image and the manifest give it, with the local paths and ports."""
        values = dict(self.image.environment)
        for entry in self.spec.get("env", ()):
            values[entry["name"]] = self.pod.value(entry)
        if self.image.is_sidecar and "args" not in self.spec:
            values.setdefault("SIDECAR_LISTEN", f"localhost:{Pod.SIDECAR_PORT}")
        values = {name: self.pod.local_address(self._local_path(value)) for name, value in values.items()}
        return values | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"}

    def local(self, words: Sequence[str]) -> list[str]:
        """A command of the manifest, to be run here."""
        found = [sys.executable if word == "python3" else self._local_path(word) for word in words]
        return [sys.executable, "-m", "sidecar", *found[1:]] if found[0] == "faktory-sidecar" else found

    def start(self) -> None:
        """Starts a run."""
        self.runs += 1
        self.started_up = self.ready = False
        with self._log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.pod.note(self.name, "started")
        now = time.monotonic()
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            if kind in self.spec:
                delay = self.spec[kind].get("initialDelaySeconds", 0) / HURRY
                self._probes[kind] = Probing(self.spec[kind], now + delay)
        if "startupProbe" not in self.spec:
            self.started_up = True
        if "readinessProbe" not in self.spec:
            self.ready = self.started_up

    def look(self) -> None:
        """Notes an exit, and runs the probes that are due."""
        if self.process is None:
            return
        code = self.process.poll()
        if code is not None:
            self.process = None
            self.ready = False
            self.exit_codes.append(code)
            self.pod.note(self.name, f"exited {code}")
            return
        if not self.pod.terminating:
            self._probe("startupProbe" if not self.started_up else "livenessProbe")
            if self.started_up:
                self._probe("readinessProbe")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to its process, if it has one."""
        if self.process is not None and self.process.poll() is None:
            self.pod.note(self.name, number.name)
            self.process.send_signal(number)

    def pre_stop(self, deadline: float) -> None:
        """Runs its preStop hook to the end, at most until the deadline."""
        hook = self.spec.get("lifecycle", {}).get("preStop")
        if hook is None:
            return
        self.pod.note(self.name, "preStop")
        try:
            done = subprocess.run(
                self.local(hook["exec"]["command"]),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=max(0.1, deadline - time.monotonic()),
            )
        except subprocess.TimeoutExpired:
            self.pod.note(self.name, "preStop timed out")
        else:
            self.pod.note(self.name, f"preStop exited {done.returncode}")

    def _probe(self, kind: str) -> None:
        probe = self._probes.get(kind)
        now = time.monotonic()
        if probe is None or now < probe.due:
            return
        probe.due = now + probe.period
        passed = self._passes(probe.spec)
        probe.failures = 0 if passed else probe.failures + 1
        match kind:
            case "startupProbe" if passed:
                self.started_up = True
                self.ready = "readinessProbe" not in self.spec
                self.pod.note(self.name, "startup probe passed")
            case "readinessProbe" if passed or probe.exhausted:
                self.ready = passed
            case "startupProbe" | "livenessProbe" if probe.exhausted:
                self.pod.note(self.name, f"{kind} failed")
                self.signal(signal.SIGTERM)
                probe.due = now + self.pod.grace
                threading.Timer(MINIMUM_GRACE, self.signal, [signal.SIGKILL]).start()

    def _passes(self, spec: Manifest) -> bool:
        timeout = float(spec.get("timeoutSeconds", 1))
        get: Manifest = spec["httpGet"]
        named = {port["name"]: int(port["containerPort"]) for port in self.spec["ports"]}
        port = self.pod.local_port(named[get["port"]])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{get['path']}", timeout=timeout) as response:
                return bool(200 <= response.status < 400)
        except OSError:
            return False

    def _local_path(self, text: str) -> str:
        mounts = sorted(self.spec.get("volumeMounts", ()), key=lambda mount: -len(mount["mountPath"]))
        for mount in mounts:
            path = mount["mountPath"].rstrip("/")
            if text == path or text.startswith(path + "/"):
                return str(self.pod.volumes[mount["name"]]) + text[len(path) :]
        return str(EXAMPLES) + text[len("/app") :] if text.startswith("/app/") else text


class Pod:
    """One pod, from a pod template.

    Args:
        template: `spec.template` of a workload.
        claims: for a StatefulSet, its `volumeClaimTemplates`.
        name: unique in the cluster.
    """

    SIDECAR_PORT = 7419

    def __init__(self, cluster: Cluster, template: Manifest, name: str, claims: Sequence[Manifest] = ()) -> None:
        self.cluster = cluster
        self.name = name
        self.spec: Manifest = template["spec"]
        self.grace = float(self.spec.get("terminationGracePeriodSeconds", 30))
        self.directory = _made(cluster.directory / "pods" / name)
        self.events: list[Event] = []
        self.terminating = False
        self.gone = False
        self._ports: dict[int, int] = {}
        self._lock = threading.Lock()
        self.volumes = {volume["name"]: self._volume(volume) for volume in self.spec.get("volumes", ())}
        for claim in claims:
            label = claim["metadata"]["name"]
            self.volumes[label] = cluster.claim(f"{label}-{name}")
        inits = [
            Container(self, spec, sidecar=spec.get("restartPolicy") == "Always")
            for spec in self.spec.get("initContainers", ())
        ]
        self._inits = inits
        self._mains = [Container(self, spec, sidecar=False) for spec in self.spec["containers"]]
        self._supervisor = threading.Thread(target=self._supervise, daemon=True, name=f"pod {name}")

    def container(self, name: str) -> Container:
        """One of its containers."""
        return next(each for each in (*self._inits, *self._mains) if each.name == name)

    def start(self, *, timeout: float = 30.0) -> None:
        """Starts it as the kubelet does: sidecars one after the other, each up before the next, then the others."""
        self._supervisor.start()
        for container in self._inits:
            container.start()
            wait_for(partial(_is_past, container), what=f"{container.name} is up or done", timeout=timeout)
            assert container.sidecar or container.exit_codes[-1] == 0, container.log
        for container in self._mains:
            container.start()

    def delete(self) -> None:
        """Ends it as the kubelet does, and returns when nothing of it is left but the logs."""
        if not self.gone:
            self._terminate()
            self._remove()

    def wait_until_complete(self, *, timeout: float) -> None:
        """For a Job's pod: returns when its command and then its sidecars have ended, and it is gone.

        Raises:
            AssertionError: the command failed, or didn't end in time.
        """
        wait_for(lambda: all(c.exit_codes and not c.running for c in self._mains), what="completion", timeout=timeout)
        self.delete()
        for container in self._mains:
            assert container.exit_codes[-1] == 0, container.log

    def order(self, *whats: str) -> list[str]:
        """`container: what` of the events with these texts, in order."""
        return [f"{event.container}: {event.what}" for event in self.events if not whats or event.what in whats]

    def note(self, container: str, what: str) -> None:
        """Records an event."""
        with self._lock:
            self.events.append(Event(time.monotonic(), container, what))

    def value(self, entry: Manifest) -> str:
        """The value of an environment variable."""
        if "value" in entry:
            return str(entry["value"])
        reference = entry["valueFrom"]["secretKeyRef"]
        return self.cluster.secrets[reference["name"]][reference["key"]]

    def local_port(self, port: int) -> int:
        """The port of this machine that stands for a port of the pod."""
        with self._lock:
            return self._ports.setdefault(port, free_port())

    def local_address(self, text: str) -> str:
        """A value with the pod's own addresses in it, as they are here."""

        def here(match: re.Match[str]) -> str:
            host = "127.0.0.1" if match[1] == "0.0.0.0" else match[1]
            return f"{host}:{self.local_port(int(match[2]))}"

        own = {str(port["containerPort"]) for spec in self.spec["containers"] for port in spec.get("ports", ())}
        own |= {str(port["containerPort"]) for spec in self.spec.get("initContainers", ()) for port in spec["ports"]}
        ports = "|".join({*own, str(self.SIDECAR_PORT)})
        return re.sub(rf"(?<![\w.])(localhost|0\.0\.0\.0):({ports})\b", here, text)

    def _volume(self, volume: Manifest) -> Path:
        place: Path = self.directory / "volumes" / volume["name"]
        match volume:
            case {"emptyDir": _}:
                return _made(place)
            case {"secret": {"secretName": name}}:
                for key, value in self.cluster.secrets[name].items():
                    (_made(place) / key).write_text(value)
                return place
            case {"persistentVolumeClaim": {"claimName": str(name)}}:
                return self.cluster.claim(name)
        raise NotImplementedError(f"volume {volume}")

    def _supervise(self) -> None:
        while not self.gone:
            for container in (*self._inits, *self._mains):
                container.look()
                ended = bool(container.exit_codes) and not container.running and container.runs > 0
                if ended and not self.terminating and self._restarts(container):
                    container.start()
            time.sleep(STEP)

    def _restarts(self, container: Container) -> bool:
        if container.sidecar:
            return True
        if container in self._inits:
            return False
        policy = self.spec.get("restartPolicy", "Always")
        return policy == "Always" or (policy == "OnFailure" and container.exit_codes[-1] != 0)

    def _terminate(self) -> None:
        """Hooks of all at once; SIGTERM at the others first, at the sidecars after them, in reverse order."""
        self.terminating = True
        deadline = time.monotonic() + self.grace
        sidecars = [container for container in reversed(self._inits) if container.sidecar]
        hooks = {
            container.name: threading.Thread(target=container.pre_stop, args=(deadline,))
            for container in (*sidecars, *self._mains)
            if container.running
        }
        for thread in hooks.values():
            thread.start()
        for container in self._mains:
            if container.running:
                hooks[container.name].join()
                container.signal(signal.SIGTERM)
        for container in self._mains:
            self._end(container, deadline)
        for container in sidecars:
            if container.running:
                hooks[container.name].join()
                container.signal(signal.SIGTERM)
                self._end(container, max(deadline, time.monotonic() + MINIMUM_GRACE))

    def _end(self, container: Container, deadline: float) -> None:
        while container.running and time.monotonic() < deadline:
            time.sleep(STEP)
        container.signal(signal.SIGKILL)
        wait_for(lambda: not container.running, what=f"{container.name} is gone")

    def _remove(self) -> None:
        self.gone = True
        self._supervisor.join()
        shutil.rmtree(self.directory / "volumes", ignore_errors=True)


def _is_past(container: Container) -> bool:
    """Whether the next container may start: a sidecar is up, another one has ended."""
    return container.started_up if container.sidecar else not container.running


def _made(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return directory
