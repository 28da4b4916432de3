"""What large JSON costs once it is decoded, told before it is.

A Python object for each value makes a text cost a hundred times its size, and one emoji makes a long string cost four
times its own. So of a large text the long strings are checked where they lie, and left out of what is decoded; and
where the rest would cost too much it isn't decoded at all.
"""

from __future__ import annotations

import codecs
import re
from typing import Final

LARGE: Final = 256 * 1024
"""Bytes above which a text is looked at before it is decoded; up to it the worst costs 10 MiB."""
MAX_WEIGHT: Final = 24 * 1024 * 1024
"""Bytes of Python objects that one text may become, about."""
MAX_QUOTES: Final = 200_000
"""Quotes in a text, without escaped ones, whose strings are looked at one by one: some 50 ms."""
MAX_ELEMENTS: Final = 100_000
"""Jobs of one PUSHB."""

_LONG = 256
_BRACKET, _SEPARATOR, _CHARACTER = 240, 64, 4  # bytes, at most
_PIECE = 64 * 1024

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
# Half of a surrogate pair has no place in it.
_SOUND = re.compile(
    rb'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u(?:[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}'
    rb"|(?![dD][89a-fA-F])[0-9a-fA-F]{4}))"
    rb'[^"\\\x00-\x1f]*+)*+"'
)


def weight(text: bytes) -> int:
    """Bytes of the Python objects that valid JSON becomes, at most about; cheap."""
    brackets = text.count(b"[") + text.count(b"{")
    separators = text.count(b",") + text.count(b":")
    return _BRACKET * brackets + _SEPARATOR * separators + _CHARACTER * len(text)


def reduced(text: bytes) -> bytes | None:
    """A large JSON text with a space in place of what each long string says; None: it costs too much, or is unsound.

    Where the result is valid JSON the text is, and each string that was left out decodes. A long key makes it unsound.
    """
    if _has_many_strings(text) or not _is_utf8(text):
        return None
    pieces: list[bytes] = []
    place = 0
    for found in _STRING.finditer(text):
        start, end = found.span()
        if end - start < _LONG:
            continue
        if _SOUND.fullmatch(text, start, end) is None or _may_be_key(text, end):
            return None
        pieces.append(text[place:start])
        place = end
    short = b'" "'.join([*pieces, text[place:]]) if pieces else text
    return short if weight(short) <= MAX_WEIGHT else None


def has_many_elements(array: bytes) -> bool:
    """Whether an array may have more elements than are taken at once, or they cost too much beside it."""
    if array.count(b"{") > 2 * MAX_ELEMENTS:
        return True
    commas = array.count(b",")
    if commas <= 4 * MAX_ELEMENTS:
        return False
    if _has_many_strings(array):
        return True
    for found in _STRING.finditer(array):
        start, end = found.span()
        if end - start >= _LONG:
            commas -= array.count(b",", start, end)
    return commas > 4 * MAX_ELEMENTS


def _has_many_strings(text: bytes) -> bool:
    return text.count(b'"') - text.count(b'\\"') > MAX_QUOTES


def _may_be_key(text: bytes, end: int) -> bool:
    following = text[end : end + 16].lstrip()
    return following[:1] in (b":", b"")


def _is_utf8(text: bytes) -> bool:
    if text.isascii():
        return True
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(text)
    try:
        for start in range(0, len(text), _PIECE):
            decoder.decode(view[start : start + _PIECE])
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True
