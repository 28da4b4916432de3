"""docs/job-batching.md runs: every shell block of it, with the real bash and curl, against the real Faktory."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import SidecarFactory
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for
from tests.real.sidecar_command import SidecarProcess, clean_environment

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "job-batching.md"
SERVER_LINE = re.compile(r"^(?:[A-Z_]+=\S+ )*faktory-sidecar$", re.MULTILINE)
WORKER_LINE = re.compile(r"^(?:[A-Z_]+=\S+ )*python deploy/examples/worker\.py$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: the first line of its text on the page, its language, its text."""

    line: int
    language: str
    text: str

    @property
    def kind(self) -> str:
        if SERVER_LINE.search(self.text):
            return "server"
        if WORKER_LINE.search(self.text):
            return "worker"
        if all(re.match(r"export |#|$", line) for line in self.text.splitlines()):
            return "settings"
        return "client"


def blocks() -> Iterator[Block]:
    """All fenced blocks of the page."""
    language, start, lines = "", 0, list[str]()
    for number, line in enumerate(PAGE.read_text().splitlines(), start=1):
        fence = re.fullmatch(r"```(\w*)", line)
        if fence is None:
            lines.append(line)
        elif not start:
            language, start, lines = fence[1], number + 1, []
        else:
            yield Block(start, language, "\n".join(lines) + "\n")
            start = 0
    assert not start, "a block is not closed"


def shell_blocks(kind: str) -> list[Block]:
    return [block for block in blocks() if block.language in ("bash", "sh", "shell") and block.kind == kind]


def named(block: Block) -> str:
    return f"line{block.line}"


def shell(script: str, **environment: str) -> dict[str, object]:
    """How to run a block as a reader would: bash, from the checkout's root, this Python's programs first."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {
        "args": ["bash", "-e", "-u", "-c", script],
        "cwd": ROOT,
        "env": clean_environment({"PATH": path, **environment}),
        "stdin": subprocess.DEVNULL,
    }


def stored(faktory: RealFaktory) -> list[dict[str, object]]:
    return faktory.stored("default")


def expected_jobs(script: str) -> int:
    """How many jobs a client's block sends."""
    if "test_batching.sh" in script:
        return 109
    loop = re.search(r"\{1\.\.(\d+)\}", script)
    if loop is not None:
        return int(loop[1])
    return script.count('"type"') or script.count("curl")


def test_every_shell_block_has_a_kind_that_is_tested_below() -> None:
    kinds = {kind: len(shell_blocks(kind)) for kind in ("server", "worker", "settings", "client")}

    assert all(count > 0 for count in kinds.values()), kinds
    assert {block.language for block in blocks()} == {"bash", "json", "text"}
    assert sum(kinds.values()) == len([block for block in blocks() if block.language == "bash"])


def test_every_answer_that_is_shown_is_json() -> None:
    shown = [json.loads(block.text) for block in blocks() if block.language == "json"]

    assert [list(answer) for answer in shown] == [["job_ids", "message", "total_enqueued"], ["job_id", "message"]]


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", shell_blocks("client"), ids=named)
def test_client_block(block: Block, faktory: RealFaktory, sidecar_process: SidecarFactory) -> None:
    sidecar = sidecar_process(faktory.url)
    url = f"http://localhost:{sidecar.http_port}"
    script = block.text.replace("http://localhost:3000", url)
    script = script.replace("./test_batching.sh", f"./test_batching.sh {url}")

    done = subprocess.run(**shell(script), capture_output=True, text=True, timeout=150)  # type: ignore[call-overload]

    assert done.returncode == 0, done.stdout + done.stderr
    wanted = expected_jobs(block.text)
    wait_for(lambda: len(stored(faktory)) >= wanted, what=f"{wanted} jobs are in Faktory", timeout=20)
    assert len(stored(faktory)) == wanted
    if "test_batching.sh" not in script:
        assert done.stdout.count("Successfully enqueued") == (1 if "/jobs/batch" in script else wanted)
        for job in stored(faktory):
            arguments = job["args"]
            assert isinstance(arguments, list)
            assert {"a", "b"} <= set(arguments[0])


def config_line(exports: dict[str, str]) -> str:
    size, delay = exports.get("BATCH_MAX_SIZE", "100"), exports.get("BATCH_MAX_DELAY_MS", "50")
    return f"Batch config: max_size={size}, max_delay={delay}ms, auto_batch={exports.get('BATCH_AUTO_ENABLED', 'true')}"


@pytest.mark.slow
@pytest.mark.parametrize("block", shell_blocks("settings"), ids=named)
def test_settings_block(block: Block, faktory: RealFaktory, sidecar_process: SidecarFactory, tmp_path: Path) -> None:
    done = subprocess.run(  # type: ignore[call-overload]
        **shell(f"{block.text}\nenv -0"), capture_output=True, text=True, timeout=20
    )
    after = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
    exports = {name: value for name, value in after.items() if name.startswith("BATCH_")}
    assert exports

    sidecar = sidecar_process(faktory.url, exports)

    wait_for(partial(alike, sidecar, config_line(exports)), what=config_line(exports))
    assert not [record for record in sidecar.log() if record.get("level") in ("warning", "error")]


@pytest.mark.slow
@pytest.mark.parametrize("block", shell_blocks("server"), ids=named)
def test_server_block(block: Block, faktory: RealFaktory, tmp_path: Path) -> None:
    script = block.text.replace("localhost:7420", f"localhost:{faktory.port}")
    script = SERVER_LINE.sub(lambda line: f"exec env {line[0]}", script)
    settings = {
        "SIDECAR_LISTEN": "localhost:0",
        "SIDECAR_HTTP_LISTEN": "localhost:0",
        "SIDECAR_LOG_FORMAT": "console",
        "SIDECAR_JOURNAL_DIR": str(tmp_path / "journal"),
    }
    log = tmp_path / "log"
    with log.open("wb") as output:
        running = subprocess.Popen(**shell(script, **settings), stderr=output)  # type: ignore[call-overload]
    try:
        wait_for(lambda: "Started batch flusher" in log.read_text(), what="it has started", timeout=20)
        given = dict(re.findall(r"(BATCH_[A-Z_]+)=(\S+)", block.text))
        assert f"INFO {config_line(given)}" in log.read_text().splitlines()
        running.send_signal(signal.SIGTERM)
        assert running.wait(30) == 0
    finally:
        running.kill()
        running.wait()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Workers to be ended, with their job processes."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def start_worker(started: list[subprocess.Popen[bytes]], sidecar: SidecarProcess, output: Path) -> None:
    """Run the page's worker block against a sidecar, its results into a file."""
    (block,) = shell_blocks("worker")
    script = block.text.replace("tcp://localhost:7419", sidecar.url)
    script = WORKER_LINE.sub(lambda line: f"exec env {line[0]}", script)
    with output.open("ab") as results:
        process = subprocess.Popen(  # type: ignore[call-overload]
            **shell(script), stdout=results, stderr=subprocess.STDOUT, start_new_session=True
        )
    started.append(process)


@pytest.mark.slow
@pytest.mark.parametrize("ack", ["disk", "memory", "upstream", "legacy"])
def test_jobs_over_http_are_run_by_the_worker(
    ack: str,
    faktory: RealFaktory,
    sidecar_process: SidecarFactory,
    worker: list[subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    curl = shutil.which("curl")
    assert curl is not None
    sidecar = sidecar_process(faktory.url, {"BATCH_AUTO_ENABLED": "false"} if ack == "legacy" else {"SIDECAR_ACK": ack})
    results = tmp_path / "results"
    start_worker(worker, sidecar, results)

    def post(path: str, body: str) -> dict[str, object]:
        command = [curl, "-s", "-X", "POST", f"http://localhost:{sidecar.http_port}{path}", "-d", body]
        answer: dict[str, object] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return answer

    wanted = {}
    for path, text in (("add", "Add 12 4 = 16"), ("subtract", "Subtract 12 4 = 8"), ("multiply", "Multiply 12 4 = 48")):
        wanted[post(f"/jobs/{path}", '{"a": 12, "b": 4}')["job_id"]] = text
    wanted[post("/jobs", '{"type": "Divide", "args": [{"a": 12, "b": 4}], "reserve_for": 60}')["job_id"]] = (
        "Divide 12 4 = 3"
    )
    answer = post("/jobs/batch", '{"jobs": [{"type": "Add", "args": {"a": 1, "b": 2, "request_id": "req-1"}}]}')
    job_ids = answer["job_ids"]
    assert isinstance(job_ids, list)
    wanted[job_ids[0]] = "Add 1 2 = 3"
    failing = post("/jobs/divide", '{"a": 1, "b": 0}')["job_id"]

    def ran() -> dict[str, str]:
        found = re.findall(r"^(\w+ \S+ \S+ = \S+) jid=(\w+)", results.read_text(), re.MULTILINE)
        return {jid: text for text, jid in found}

    wait_for(lambda: len(ran()) == len(wanted), what="the worker has run all jobs", timeout=30)
    assert ran() == wanted
    assert "request_id=req-1" in results.read_text()
    retries = wait_for(lambda: faktory.stored_sorted("retries"), what="the division by 0 has failed", timeout=20)
    assert [job["jid"] for job in retries] == [failing]
    assert "ZeroDivisionError" in json.dumps(retries[0]["failure"])


@pytest.mark.slow
def test_the_test_script_fails_when_a_sample_misbehaves(faktory: RealFaktory, sidecar_process: SidecarFactory) -> None:
    sidecar = sidecar_process(faktory.url, {"SIDECAR_HTTP_TOKEN": "t0ken"})
    url = f"http://localhost:{sidecar.http_port}"

    without = subprocess.run(**shell(f"./test_batching.sh {url}"), capture_output=True, text=True)  # type: ignore[call-overload]
    with_token = subprocess.run(  # type: ignore[call-overload]
        **shell(f"./test_batching.sh {url}", SIDECAR_HTTP_TOKEN="t0ken"), capture_output=True, text=True
    )
    nobody = subprocess.run(**shell("./test_batching.sh http://localhost:1"), capture_output=True, text=True)  # type: ignore[call-overload]

    assert without.returncode == 1
    assert "401" in without.stdout
    assert with_token.returncode == 0, with_token.stdout
    assert nobody.returncode == 2


@pytest.mark.slow
def test_the_log_lines_of_the_page_are_written(faktory: RealFaktory, sidecar_process: SidecarFactory) -> None:
    (shown,) = [block for block in blocks() if block.language == "text" and block.text.startswith("INFO ")]
    sidecar = sidecar_process(faktory.url)
    url = f"http://localhost:{sidecar.http_port}/jobs/batch"
    jobs = json.dumps({"jobs": [{"type": "Add", "args": {"a": 1, "b": 2}}] * 100})
    single = json.dumps({"a": 1, "b": 2})
    script = f"curl -s {url} -d '{jobs}'\ncurl -s {url.replace('batch', 'add')} -d '{single}'"
    subprocess.run(**shell(script), capture_output=True, check=True)  # type: ignore[call-overload]

    for line in shown.text.splitlines():
        records = wait_for(partial(alike, sidecar, line.removeprefix("INFO ")), what=line)
        assert records[0]["level"] == "info"


def alike(sidecar: SidecarProcess, message: str) -> list[dict[str, object]]:
    """The log records that say the same, other numbers of jobs aside."""
    wanted = re.sub(r"\d+ jobs", "N jobs", message)
    return [record for record in sidecar.log() if re.sub(r"\d+ jobs", "N jobs", str(record["message"])) == wanted]
