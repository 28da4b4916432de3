"""Which JSON keys Faktory takes for one of its fields.

Go's `encoding/json` looks a key up exactly first and then without regard to case, by Unicode's *simple* folding.
For names of ASCII letters that means A-Z and two strangers: U+212A KELVIN SIGN folds to k, U+017F LATIN SMALL LETTER
LONG S to s.
Python's `str.casefold` is no substitute, it folds more (a ligature of two letters becomes both).
"""

from __future__ import annotations

from string import ascii_lowercase, ascii_uppercase

_FOLD = str.maketrans(ascii_uppercase + "\u212a\u017f", ascii_lowercase + "ks")


def folded(key: str) -> str:
    """The spelling under which Go compares `key` with a field name in small ASCII letters."""
    return key.lower() if key.isascii() else key.translate(_FOLD)
