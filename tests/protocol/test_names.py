"""Go's simple folding of field names."""

from __future__ import annotations

import sys

import pytest

from sidecar.protocol.names import folded


@pytest.mark.parametrize(
    ("key", "name"),
    [
        *(("jid", "jid"), ("JID", "jid"), ("Reserve_For", "reserve_for"), ("", ""), ("a-B c", "a-b c")),
        *(("bac\u212atrace", "backtrace"), ("cu\u017ftom", "custom"), ("ARG\u017f", "args")),
        *(("\ufb06art", "\ufb06art"), ("j\u0131d", "j\u0131d"), ("\u0130", "\u0130"), ("Stra\u00dfe", "stra\u00dfe")),
    ],
)
def test_folded(key: str, name: str) -> None:
    assert folded(key) == name


def test_only_two_letters_beside_ascii_fold_to_ascii() -> None:
    others = [chr(point) for point in range(128, sys.maxunicode + 1) if folded(chr(point)).isascii()]
    assert others == ["\u017f", "\u212a"]
