"""Schemathesis against the OpenAPI document: no 500, and no answer that the document doesn't have."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import trio

from tests.web.conftest import start
from tests.web.serving import RecordingIntake

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "response_headers_conformance",
    "unsupported_method",
)
EXAMPLES = 150  # requests of each phase and route; a minute in all


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_no_request_is_answered_other_than_documented(
    nursery: trio.Nursery, intake: RecordingIntake, tmp_path: Path
) -> None:
    port = await start(nursery, intake)
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"http://127.0.0.1:{port}/openapi.json"]
    command += ["--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES), "--mode", "all", "--no-color"]
    command += ["--generation-database", "none", "--workers", "1"]

    done = await trio.run_process(command, check=False, capture_stdout=True, stderr=subprocess.STDOUT, cwd=tmp_path)

    report = done.stdout.decode(errors="replace")
    assert done.returncode == 0, report[-6000:]
    assert len(intake.jobs) > 100, "it found its way to jobs that are taken"
