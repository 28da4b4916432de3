"""The short run of the ledger; `make kill-test CYCLES=200` is the long one."""

from __future__ import annotations

import pytest

from tests.ledger.driver import drive

KILLS = 20


@pytest.mark.timeout(300)
def test_nothing_acknowledged_is_lost_over_kills(faktory_parts: None, toxiproxy_server: object) -> None:
    tally = drive(KILLS, seed=1, per_round=10)
    assert tally.lost == 0
    assert tally.kills == KILLS
    assert tally.acknowledged > 1_000
    assert tally.duplicates <= tally.bound
