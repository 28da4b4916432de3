"""One sidecar: its parts connected, and what starts, stops and speaks at both ends.

*   `wiring` has all parts, and how they run; `serving` the edges around them, `sending` empties a journal without any.
*   `stopping` drains and has the last words; `banner` and `linkreport` say what begins and what changes.
"""
