"""The benchmark: everything side by side, on one machine, in one run.

*   A **site** (`site`) is what stands still while it is measured: a Faktory, a link to it of some round trip, sidecars.
*   A **row** (`rows`) is one way to push jobs, and how many producers do it.
*   A **measurement** (`measure`) is one row, once. The rows of a round come one after the other, and so do rounds, so
    that whatever else the machine does meets all of them alike.
*   A **target** (`targets`) compares rows of the same round; what counts is the median over the rounds.
*   A **program** (`load`, `clients`) generates load, in a process of its own.
"""
