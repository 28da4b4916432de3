"""Makes a Toxiproxy slow: a delay for each direction of each of its proxies, as a WAN has it.

    python wan_delay.py --api http://localhost:8474 --milliseconds 25

Waits up to half a minute for Toxiproxy to answer. A second run changes nothing.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.error
import urllib.request
from typing import Any

PATIENCE_SECONDS = 30.0
CONFLICT = 409  # Toxiproxy has a toxic of that name already


def call(url: str, body: dict[str, Any] | None = None) -> Any:
    """One request to Toxiproxy's API.

    Raises:
        OSError: no answer, or a refusal.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "wan-delay"}
    request = urllib.request.Request(url, data, headers)  # noqa: S310 - the operator's own URL
    with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
        return json.load(response)


def proxies(api: str) -> list[str]:
    """The names of all proxies, waited for."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return list(call(f"{api}/proxies"))
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


def delay(api: str, proxy: str, stream: str, milliseconds: int) -> None:
    """Delay one direction, `upstream` or `downstream`."""
    toxic = {"name": f"wan_{stream}", "type": "latency", "stream": stream, "attributes": {"latency": milliseconds}}
    try:
        call(f"{api}/proxies/{proxy}/toxics", toxic)
    except urllib.error.HTTPError as error:
        if error.code != CONFLICT:
            raise


def main() -> None:
    """Delay everything."""
    parser = argparse.ArgumentParser(description="Give each direction of each Toxiproxy proxy a delay.")
    parser.add_argument("--api", default="http://localhost:8474", metavar="URL", help="Toxiproxy's API")
    parser.add_argument("--milliseconds", type=int, default=25, metavar="N", help="for each direction (default 25)")
    arguments = parser.parse_args()
    for proxy in proxies(arguments.api):
        for stream in ("upstream", "downstream"):
            delay(arguments.api, proxy, stream, arguments.milliseconds)
        print(f"{proxy}: {2 * arguments.milliseconds} ms a round trip", flush=True)


if __name__ == "__main__":
    main()
