"""What a soak has seen, by its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.ledger.book import Book
from tests.soak.samples import Sample


@dataclass(frozen=True)
class Span:
    """A trouble, from its beginning to the time when its traces must be gone; seconds since the soak began."""

    name: str
    begin: float
    end: float
    explains: tuple[str, ...] = ()

    def covers(self, begin: float, end: float) -> bool:
        """Whether any part of that time lies within."""
        return begin <= self.end and end >= self.begin


@dataclass
class Findings:
    """All of it.

    Attributes:
        began: when (`time.monotonic`); all other times are seconds since.
        arrived: how often Faktory has stored each jid.
        calm: samples of pauses between attacks, `samples` of all the time.
        records: of all logs, each with its time.
        said: jobs that the sidecar has said to be in doubt.
        reserved: jids that Faktory thinks a worker has, at the end.
    """

    began: float = 0.0
    book: Book = field(default_factory=Book)
    arrived: Counter[str] = field(default_factory=Counter)
    samples: list[Sample] = field(default_factory=list)
    calm: list[Sample] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    records: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    attacks: dict[str, int] = field(default_factory=dict)
    said: int = 0
    lives: int = 0
    descriptors_before: int = 0
    descriptors_after: int = 0
    stopped: str = ""
    reserved: set[str] = field(default_factory=set)
