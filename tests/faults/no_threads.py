"""The sidecar where the system lets no new thread be started as long as a file exists, as a limit on processes does."""

from __future__ import annotations

import os
import threading
from typing import Any

from trio._core import _thread_cache

from sidecar.__main__ import main

start = threading._start_new_thread  # type: ignore[attr-defined]


def limited(*arguments: Any) -> Any:
    if os.path.exists(os.environ["NO_THREADS_WHILE"]):
        raise RuntimeError("can't start new thread")
    return start(*arguments)


if __name__ == "__main__":
    threading._start_new_thread = limited  # type: ignore[attr-defined]
    _thread_cache.IDLE_TIMEOUT = 1  # so that a redial needs a new one
    main()
