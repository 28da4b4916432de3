"""A producer and worker around pyfaktory, told what to do by one JSON object on stdin.

It reports on stdout, one JSON object a line: `{"pushed": [jids]}`, `{"refused": {jid: text}}`,
`{"ran": {"jid": ..., "args": [...]}}`, `{"state": "started"}`, `{"state": "quiet"}`, `{"ended": true}`. stdout must
be a file opened for appending: jobs run in processes of their own, and each reports for itself. Where Faktory
is, pyfaktory learns from FAKTORY_URL.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from typing import Any

from pyfaktory import Client, Consumer, Job, Producer
from pyfaktory.util.enums import State


def report(event: dict[str, Any]) -> None:
    """Writes one line with one system call, so that lines of several processes don't mix."""
    line = json.dumps(event).encode() + b"\n"
    if os.write(1, line) != len(line):
        raise RuntimeError("a report was cut short")


def push(scenario: dict[str, Any]) -> None:
    """One PUSH a job, each waiting for its reply."""
    with Client(role="producer") as client:
        producer = Producer(client)
        pushed = []
        for fields in scenario["jobs"]:
            producer.push(Job(**fields))
            pushed.append(fields["jid"])
    report({"pushed": pushed})


def push_bulk(scenario: dict[str, Any]) -> None:
    """One PUSHB with all jobs."""
    with Client(role="producer") as client:
        refused = Producer(client).push_bulk([Job(**fields) for fields in scenario["jobs"]])
    report({"pushed": [fields["jid"] for fields in scenario["jobs"] if fields["jid"] not in refused]})
    report({"refused": refused})


def record(jid: str, *args: Any) -> None:
    """The job that only tells that it ran."""
    report({"ran": {"jid": jid, "args": list(args)}})


def flaky(jid: str, *args: Any) -> None:
    """The job that fails."""
    record(jid, *args)
    raise RuntimeError("flaky on purpose")


class Parent:
    """The job that pushes another one before it ends."""

    def __init__(self, child_queue: str) -> None:
        self.child_queue = child_queue

    def __call__(self, jid: str, *args: Any) -> None:
        with Client(role="producer") as client:
            child = Job(jid=f"{jid}-child", jobtype="Record", args=[jid], queue=self.child_queue)
            Producer(client).push(child)
        record(jid, *args)


def end_after(expect: int, consumer: Consumer) -> None:
    """Interrupts the consumer, as Ctrl-C would, once that many jobs were acknowledged or failed."""
    done = 0
    settle = consumer.task_done

    def counted(future: Any) -> None:
        nonlocal done
        settle(future)
        done += 1
        if done == expect:
            os.kill(os.getpid(), signal.SIGINT)

    consumer.task_done = counted


def report_states(client: Client) -> None:
    """Tells when Faktory's wishes reach the client."""
    told = set()
    while client.state is not State.END:
        if client.state in (State.QUIET, State.TERMINATING) and client.state not in told:
            told.add(client.state)
            report({"state": "quiet" if client.state is State.QUIET else "terminate"})
        time.sleep(0.02)


def work(scenario: dict[str, Any]) -> None:
    """Runs jobs until told otherwise; pyfaktory ends its worker with exit code 1, which is no error here."""
    with Client(role="both", worker_id=scenario["wid"], beat_period=1) as client:
        threading.Thread(target=report_states, args=(client,), daemon=True).start()
        concurrency = scenario["concurrency"]
        consumer = Consumer(client, queues=[scenario["queue"]], concurrency=concurrency, grace_period=10)
        consumer.register("Record", record, bind=True)
        consumer.register("Flaky", flaky, bind=True)
        consumer.register("Parent", Parent(scenario["child_queue"]), bind=True)
        if scenario["expect"]:
            end_after(scenario["expect"], consumer)
        report({"state": "started"})
        try:
            consumer.run()
        except SystemExit:
            report({"ended": True})


def main() -> int:
    """Runs the scenario on stdin and returns the exit code it asks for."""
    scenario = json.load(sys.stdin)
    {"push": push, "push-bulk": push_bulk, "work": work}[scenario["do"]](scenario)
    exit_code: int = scenario.get("exit_code", 0)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
