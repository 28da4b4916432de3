"""Jobs of HTTP bodies by themselves."""

from __future__ import annotations

import json

import pytest

from sidecar.protocol.jobs import examine, stamp
from sidecar.protocol.large import LARGE
from sidecar.web import admission

NOW = stamp(1.7e9)


@pytest.mark.parametrize("size", [10, 2 * LARGE])
@pytest.mark.parametrize(
    "more", [{}, {"retry": 3}, {"retry": None, "created_at": None}, {"created_at": ""}, {"created_at": "2020-01-01"}]
)
def test_large_jobs_are_stamped_as_small_ones_are(size: int, more: dict[str, object]) -> None:
    given = {"type": "T", "jid": "a-jid-of-its-own", "args": ["x" * size], **more}
    _, job = admission.single(json.dumps(given).encode(), NOW)
    bare = {"jid": "a-jid-of-its-own", "jobtype": "T", "args": ["x" * size]}
    plain = bare | {key: value for key, value in more.items() if value is not None}
    expected = examine(json.dumps(plain).encode(), NOW)
    assert expected is not None
    assert json.loads(job.payload) == json.loads(expected.payload)
    assert job.payload.count(b'"created_at"') == expected.payload.count(b'"created_at"')
