"""The short soak; `make soak MINUTES=30` is the long one."""

from __future__ import annotations

import pytest

from tests.soak.play import soak

SECONDS = 60.0
REPLY_LIMIT = 3.0
"""Seconds: of a machine that isn't asked to be quiet."""


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_honest_clients_beside_hostile_ones_and_troubles(faktory_parts: None, toxiproxy_server: object) -> None:
    verdict = soak(SECONDS, seed=2, reply_limit=REPLY_LIMIT)
    assert verdict.missed == []
