"""The manifests as they stand, run as the kubelet runs them: start, probes, stop, restart, completion, node drain."""

from __future__ import annotations

import json
import signal
import ssl
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.deploy.kubelet import Cluster, Pod
from tests.deploy.manifests import resource
from tests.real.faktory_server import RealFaktory
from tests.real.polling import wait_for
from tests.real.raw_client import RawClient, ServerError
from tests.real.toxiproxy_server import Link, Toxiproxy

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(180)]

SIDECAR = "faktory-sidecar"
PASSWORD = "gateway-passw0rd"

StartPod = Callable[..., Pod]


@pytest.fixture
def link(faktory: RealFaktory, toxiproxy: Toxiproxy) -> Link:
    """The way from the cluster to Faktory, 50 ms a round trip."""
    return toxiproxy.link(faktory.port, round_trip=50)


@pytest.fixture
def cluster(tmp_path: Path, faktory: RealFaktory, link: Link) -> Cluster:
    """A cluster with the Secrets that the manifests ask for."""
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    (tmp_path / "ca.pem").write_bytes(authority.cert_pem.bytes())
    chain = b"".join(blob.bytes() for blob in certificate.cert_chain_pems)
    return Cluster(
        tmp_path,
        secrets={
            "faktory": {"url": faktory.url_at(link.port)},
            "faktory-gateway": {"password": PASSWORD},
            "faktory-gateway-tls": {"tls.crt": chain.decode(), "tls.key": certificate.private_key_pem.bytes().decode()},
        },
    )


@pytest.fixture
def run_pod(cluster: Cluster) -> Iterator[StartPod]:
    """Starts pods of workloads; those that are left at the end are deleted."""
    pods: list[Pod] = []

    def run(workload: dict[str, Any], name: str) -> Pod:
        spec = workload["spec"]
        pod = Pod(cluster, spec["template"], name, spec.get("volumeClaimTemplates", ()))
        pods.append(pod)
        pod.start()
        return pod

    yield run
    for pod in pods:
        pod.delete()


def acknowledged(pod: Pod, container: str = "producer") -> set[str]:
    """The jids that a producer's log tells as acknowledged."""
    lines = pod.container(container).log.splitlines()
    return {line.split()[1] for line in lines if line.startswith("acknowledged ")}


def waiting(faktory: RealFaktory) -> list[str]:
    """The jids in Faktory's queue."""
    return [job["jid"] for job in faktory.stored()]


def has_all(faktory: RealFaktory, jids: set[str]) -> Callable[[], bool]:
    """Whether Faktory's queue holds all of these jobs."""
    return lambda: jids <= set(waiting(faktory))


def records(pod: Pod) -> list[dict[str, Any]]:
    """The sidecar's log."""
    return [json.loads(line) for line in pod.container(SIDECAR).log.splitlines() if line.startswith("{")]


def without_worker(workload: dict[str, Any]) -> dict[str, Any]:
    """The workload with only its producer, whose jobs then stay in Faktory to be counted."""
    spec = workload["spec"]["template"]["spec"]
    spec["containers"] = [each for each in spec["containers"] if each["name"] == "producer"]
    return workload


def test_the_sidecar_is_up_before_the_application_and_outlives_it(run_pod: StartPod, faktory: RealFaktory) -> None:
    pod = run_pod(resource("deployment.yaml", "Deployment"), "shop-1")
    wait_for(lambda: faktory.info()["faktory"]["total_processed"] >= 20, what="the worker runs jobs", timeout=30)
    pod.delete()
    order = pod.order("started", "startup probe passed", "SIGTERM", "exited 0", "SIGKILL")
    assert order[:2] == [f"{SIDECAR}: started", f"{SIDECAR}: startup probe passed"]
    assert set(order[2:4]) == {"producer: started", "worker: started"}
    assert order[-2:] == [f"{SIDECAR}: SIGTERM", f"{SIDECAR}: exited 0"], "exit code 0, after all the others"
    assert f"{SIDECAR}: SIGKILL" not in order
    assert pod.container("producer").exit_codes == [0]
    assert pod.container("producer").runs == 1, pod.container("producer").log
    sent = acknowledged(pod)
    assert faktory.info()["faktory"]["total_processed"] + len(waiting(faktory)) >= len(sent)
    assert records(pod)[-1]["message"] == "Stopped. No job is left behind."


def test_an_application_starts_and_stays_in_an_outage(run_pod: StartPod, faktory: RealFaktory, link: Link) -> None:
    link.disable()
    pod = run_pod(without_worker(resource("deployment.yaml", "Deployment")), "shop-1")
    wait_for(lambda: len(acknowledged(pod)) >= 30, what="jobs are acknowledged without upstream", timeout=20)
    assert pod.container(SIDECAR).runs == 1, "the liveness probe doesn't mind"
    assert pod.container("producer").runs == 1
    link.enable()
    wait_for(has_all(faktory, acknowledged(pod)), what="the outage's jobs arrive", timeout=40)


def test_a_killed_sidecar_restarts_on_its_volume(run_pod: StartPod, faktory: RealFaktory, link: Link) -> None:
    link.disable()
    pod = run_pod(without_worker(resource("deployment.yaml", "Deployment")), "shop-1")
    wait_for(lambda: len(acknowledged(pod)) >= 20, what="jobs are acknowledged", timeout=20)
    sidecar = pod.container(SIDECAR)
    sidecar.signal(signal.SIGKILL)
    wait_for(lambda: sidecar.runs == 2 and sidecar.started_up, what="the container is restarted", timeout=20)
    known = len(acknowledged(pod))
    wait_for(lambda: len(acknowledged(pod)) >= known + 20, what="the producer goes on", timeout=20)
    assert pod.container("producer").runs == 1
    link.enable()
    wait_for(has_all(faktory, acknowledged(pod)), what="the jobs of both runs arrive", timeout=40)


def test_a_hanging_sidecar_fails_its_liveness_probe(run_pod: StartPod) -> None:
    pod = run_pod(without_worker(resource("deployment.yaml", "Deployment")), "shop-1")
    sidecar = pod.container(SIDECAR)
    sidecar.signal(signal.SIGSTOP)
    wait_for(lambda: sidecar.runs == 2 and sidecar.started_up, what="the container is restarted", timeout=60)
    assert f"{SIDECAR}: livenessProbe failed" in pod.order()


def test_a_pod_deleted_in_an_outage_says_what_is_lost_with_its_emptydir(run_pod: StartPod, link: Link) -> None:
    pod = run_pod(without_worker(resource("deployment.yaml", "Deployment")), "shop-1")
    link.disable()
    wait_for(lambda: any(each["event"] == "link_down" for each in records(pod)), what="the link is down")
    known = len(acknowledged(pod))
    wait_for(lambda: len(acknowledged(pod)) >= known + 20, what="jobs are acknowledged in the outage", timeout=20)
    pod.delete()
    assert pod.container(SIDECAR).exit_codes == [0]
    last = records(pod)[-1]
    assert (last["event"], last["level"]) == ("stopped", "error")
    assert 20 <= last["waiting"] <= len(acknowledged(pod))
    assert not (pod.directory / "volumes").exists()


def test_a_job_completes_when_all_its_jobs_are_in_faktory(run_pod: StartPod, faktory: RealFaktory) -> None:
    pod = run_pod(resource("job.yaml", "Job"), "import-1")
    pod.wait_until_complete(timeout=60)
    assert pod.container("import").exit_codes == [0]
    assert pod.container(SIDECAR).exit_codes == [0]
    assert pod.order("SIGTERM", "SIGKILL") == [f"{SIDECAR}: SIGTERM"]
    assert len(acknowledged(pod, "import")) == 1000
    assert sorted(waiting(faktory)) == sorted(acknowledged(pod, "import"))


def test_a_job_waits_for_the_end_of_an_outage(run_pod: StartPod, faktory: RealFaktory, link: Link) -> None:
    link.disable()
    pod = run_pod(resource("job.yaml", "Job"), "import-1")
    wait_for(lambda: pod.container("import").exit_codes == [0], what="the command ends", timeout=60)
    with ThreadPoolExecutor() as threads:
        ending = threads.submit(pod.wait_until_complete, timeout=60)
        wait_for(lambda: f"{SIDECAR}: preStop" in pod.order(), what="the hook runs")
        assert f"{SIDECAR}: SIGTERM" not in pod.order()
        link.enable()
        ending.result()
    assert f"{SIDECAR}: preStop exited 0" in pod.order()
    assert pod.container(SIDECAR).exit_codes == [0]
    assert sorted(waiting(faktory)) == sorted(acknowledged(pod, "import"))


def test_a_job_without_native_sidecars(run_pod: StartPod, faktory: RealFaktory) -> None:
    pod = run_pod(resource("job-run.yaml", "Job"), "import-run-1")
    pod.wait_until_complete(timeout=60)
    assert pod.container("import").exit_codes == [0]
    assert len(acknowledged(pod, "import")) == 200
    assert sorted(waiting(faktory)) == sorted(acknowledged(pod, "import"))


def test_a_node_drain_in_an_outage_leaves_a_gateways_jobs_on_its_claim(
    run_pod: StartPod, cluster: Cluster, faktory: RealFaktory, link: Link
) -> None:
    pod = ready_gateway(run_pod)
    link.disable()
    jids = push_to_gateway(pod, cluster, count=100)
    assert pod.container(SIDECAR).ready, "an outage of the WAN doesn't take it out of the Service"
    pod.delete()
    assert pod.order("preStop", "SIGTERM", "exited 0", "SIGKILL") == [
        f"{SIDECAR}: preStop",
        f"{SIDECAR}: SIGTERM",
        f"{SIDECAR}: exited 0",
    ]
    assert records(pod)[-1]["waiting"] == len(jids)
    elsewhere = ready_gateway(run_pod)
    jids |= push_to_gateway(elsewhere, cluster, count=100)
    link.enable()
    wait_for(has_all(faktory, jids), what="the jobs of both pods arrive", timeout=40)
    assert sorted(waiting(faktory)) == sorted(jids), "each of them once"


def test_a_volume_left_behind_is_sent_by_a_job(
    run_pod: StartPod, cluster: Cluster, faktory: RealFaktory, link: Link
) -> None:
    send = resource("gateway/send-leftovers.yaml", "Job")
    [volume] = send["spec"]["template"]["spec"]["volumes"]
    claim = volume["persistentVolumeClaim"]["claimName"]
    link.disable()
    pod = ready_gateway(run_pod, claim.removeprefix("journal-"))
    jids = push_to_gateway(pod, cluster, count=100)
    pod.delete()
    link.enable()
    run_pod(send, "faktory-gateway-send-1").wait_until_complete(timeout=60)
    assert sorted(waiting(faktory)) == sorted(jids)


def test_a_gateway_asks_for_its_password(run_pod: StartPod, cluster: Cluster) -> None:
    pod = ready_gateway(run_pod)
    with pytest.raises(ServerError, match="Invalid password"):
        gateway_client(pod, cluster, "wrong")


def ready_gateway(run_pod: StartPod, name: str = "faktory-gateway-0") -> Pod:
    """A pod of the gateway that its Service sends clients to; its volume is the name's."""
    pod = run_pod(resource("gateway/statefulset.yaml", "StatefulSet"), name)
    wait_for(lambda: pod.container(SIDECAR).ready, what="the gateway is ready", timeout=20)
    return pod


def gateway_client(pod: Pod, cluster: Cluster, password: str) -> RawClient:
    """A client as other hosts have it: with TLS, and a password."""
    trusted = ssl.create_default_context(cafile=str(cluster.directory / "ca.pem"))
    return RawClient(pod.local_port(Pod.SIDECAR_PORT), password, host="localhost", tls=trusted)


def push_to_gateway(pod: Pod, cluster: Cluster, *, count: int) -> set[str]:
    """Pushes jobs; the jids, all of them acknowledged."""
    jids = {uuid.uuid4().hex for _ in range(count)}
    with gateway_client(pod, cluster, PASSWORD) as client:
        for jid in jids:
            assert client.push({"jid": jid, "jobtype": "Add", "args": [{"a": 1, "b": 2}]}) == "OK"
    return jids
