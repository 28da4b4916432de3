"""Rising ids, kept as ranges: what a long queue lists takes no memory for each of its jobs. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence


class IdRanges:
    """A set of ids that grows at its upper end and is taken from its lower one."""

    def __init__(self) -> None:
        self._ranges: deque[range] = deque()

    def add(self, first: int, count: int) -> None:
        """Add `count` ids from `first` on, all of them above those that are here."""
        if self._ranges and self._ranges[-1].stop == first:
            self._ranges[-1] = range(self._ranges[-1].start, first + count)
        else:
            self._ranges.append(range(first, first + count))

    def ranges(self) -> tuple[range, ...]:
        """What is here."""
        return tuple(self._ranges)

    def take_to(self, last: int) -> list[range]:
        """Remove all ids up to this one and return them."""
        taken: list[range] = []
        ranges = self._ranges
        while ranges and ranges[0].start <= last:
            lowest = ranges.popleft()
            taken.append(range(lowest.start, min(lowest.stop, last + 1)))
            if lowest.stop > last + 1:
                ranges.appendleft(range(last + 1, lowest.stop))
        return taken


def includes(ranges: Sequence[range], number: int) -> bool:
    """Whether one of these rising ranges has this number."""
    place = bisect_right(ranges, number, key=_start)
    return place > 0 and number < ranges[place - 1].stop


def _start(one: range) -> int:
    return one.start
