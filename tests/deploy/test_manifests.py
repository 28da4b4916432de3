"""The Kubernetes manifests: strictly valid, consistent with each other, and true to what the product needs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import sidecar
from sidecar.config import Settings, load
from sidecar.config.parsing import size
from sidecar.errors import StartError
from tests.deploy.manifests import DIRECTORY, all_files, resource, resources

OLDEST = "1.29"
"""The first Kubernetes that has native sidecars without a feature gate."""
NEWEST = ".".join(kubernetes_validate.latest_version().split(".")[:2])
FOREIGN = ("kustomize.config.k8s.io/", "monitoring.coreos.com/")
"""API groups that aren't Kubernetes' own: the checker reads those."""
WORST_APPLICATION_STOP = 30.0
"""Seconds that the manifests leave to an application."""
MARGIN = 5.0
"""Seconds between the end of the drain and SIGKILL."""
MOST_OF_A_VOLUME = 0.8
"""Share of its volume that a journal may take."""
ANY_SIZE = size(0, 2**60)

NATIVE = [
    pytest.param("deployment.yaml", "Deployment", id="deployment"),
    pytest.param("job.yaml", "Job", id="job"),
    pytest.param("component/sidecar.yaml", "Deployment", id="component"),
]
WORKLOADS = [
    *NATIVE,
    pytest.param("job-run.yaml", "Job", id="job-run"),
    pytest.param("gateway/statefulset.yaml", "StatefulSet", id="gateway"),
    pytest.param("gateway/send-leftovers.yaml", "Job", id="send-leftovers"),
]


def pod_of(file: str, kind: str) -> dict[str, Any]:
    """The pod of a workload."""
    spec: dict[str, Any] = resource(file, kind)["spec"]["template"]["spec"]
    return spec


def containers(pod: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All containers of a pod."""
    yield from pod.get("initContainers", ())
    yield from pod.get("containers", ())


def ours(pod: dict[str, Any]) -> dict[str, Any]:
    """The container that the sidecar runs in."""
    return next(each for each in containers(pod) if any(env["name"] == "SIDECAR_UPSTREAM" for env in each["env"]))


def settings_of(container: dict[str, Any], files: Path) -> Settings:
    """The settings that a container's environment makes; files that it names are looked for in `files`."""
    environ = {}
    for entry in container["env"]:
        value = entry.get("value", "tcp://:secret@faktory.example.com:7419")
        is_secret_file = value.startswith("/etc/faktory-sidecar/")
        environ[entry["name"]] = str(files / Path(value).name) if is_secret_file else value
    loaded = load(environ, {})
    assert loaded.warnings == ()
    return loaded.settings


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Files behind the settings of the gateway."""
    import trustme

    certificate = trustme.CA().issue_cert("faktory-gateway")
    certificate.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(str(tmp_path / "tls.crt"), append=True)
    (tmp_path / "password").write_text("secret")
    return tmp_path


def kustomized(checker: Path, directory: str) -> list[dict[str, Any]]:
    """What Kustomize makes of a directory."""
    done = subprocess.run([checker, "kustomize", DIRECTORY / directory], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("path", all_files(), ids=lambda path: str(path.relative_to(DIRECTORY)))
def test_strictly_valid(path: Path, version: str) -> None:
    for each in resources(path):
        if each["apiVersion"].startswith(FOREIGN):
            continue
        if path.parent.name == "component":  # a patch: what a Deployment must have comes from the one it is put on
            each["spec"] |= {"selector": {}}
            each["spec"]["template"]["spec"] |= {"containers": [{"name": "any"}]}
        assert kubernetes_validate.validate(each, version, strict=True) == version


def test_strictly_means_that_an_unknown_field_is_refused() -> None:
    wrong = resource("deployment.yaml", "Deployment")
    wrong["spec"]["template"]["spec"]["initContainers"][0]["restartPolice"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError, match="restartPolice"):
        kubernetes_validate.validate(wrong, NEWEST, strict=True)


def test_the_podmonitor_is_one_and_finds_the_pods(manifest_checker: Path) -> None:
    path = DIRECTORY / "podmonitor.yaml"
    done = subprocess.run([manifest_checker, "podmonitor", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    monitor = resource("podmonitor.yaml", "PodMonitor")["spec"]
    [endpoint] = monitor["podMetricsEndpoints"]
    for file, kind in [
        ("deployment.yaml", "Deployment"),
        ("job.yaml", "Job"),
        ("gateway/statefulset.yaml", "StatefulSet"),
    ]:
        template = resource(file, kind)["spec"]["template"]
        assert monitor["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
        assert endpoint["port"] in {port["name"] for port in ours(template["spec"])["ports"]}


def test_an_unknown_field_of_a_podmonitor_is_refused(manifest_checker: Path, tmp_path: Path) -> None:
    text = (DIRECTORY / "podmonitor.yaml").read_text().replace("interval:", "intervall:")
    (tmp_path / "podmonitor.yaml").write_text(text)
    done = subprocess.run(
        [manifest_checker, "podmonitor", tmp_path / "podmonitor.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "intervall" in done.stderr


def test_the_component_adds_the_sidecar_of_the_deployment(manifest_checker: Path) -> None:
    [before] = kustomized(manifest_checker, "before")
    [after] = kustomized(manifest_checker, "after")
    kubernetes_validate.validate(after, NEWEST, strict=True)
    pod = after["spec"]["template"]["spec"]
    example = pod_of("deployment.yaml", "Deployment")
    assert pod["initContainers"] == example["initContainers"]
    assert pod["volumes"] == example["volumes"]
    assert pod["terminationGracePeriodSeconds"] == example["terminationGracePeriodSeconds"]
    assert after["spec"]["template"]["metadata"]["labels"]["faktory-sidecar"] == "enabled"
    [container] = pod["containers"]
    [was] = before["spec"]["template"]["spec"]["containers"]
    assert container == was | {"env": [{"name": "FAKTORY_URL", "value": "tcp://localhost:7419"}]}


def test_the_component_comes_before_other_init_containers_and_can_be_declined(
    manifest_checker: Path, tmp_path: Path
) -> None:
    def deployment(name: str, labels: dict[str, str]) -> dict[str, Any]:
        made = resource("before/deployment.yaml", "Deployment")
        made["metadata"] = {"name": name, "labels": labels}
        made["spec"]["template"]["spec"]["initContainers"] = [{"name": "migrate", "image": "app"}]
        return made

    both = [deployment("with", {}), deployment("without", {"faktory-sidecar": "disabled"})]
    (tmp_path / "app.yaml").write_text(yaml.safe_dump_all(both))
    component = Path(*[".."] * len(tmp_path.parts[1:])) / DIRECTORY.relative_to("/") / "component"
    kustomization = {"resources": ["app.yaml"], "components": [str(component)]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    made = {each["metadata"]["name"]: each for each in kustomized(manifest_checker, str(tmp_path))}
    inits = {
        name: [c["name"] for c in each["spec"]["template"]["spec"]["initContainers"]] for name, each in made.items()
    }
    assert inits == {"with": ["faktory-sidecar", "migrate"], "without": ["migrate"]}


def test_the_gateway_is_complete(manifest_checker: Path) -> None:
    made = {(each["kind"], each["metadata"]["name"]): each for each in kustomized(manifest_checker, "gateway")}
    for each in made.values():
        kubernetes_validate.validate(each, NEWEST, strict=True)
    gateway = made["StatefulSet", "faktory-gateway"]["spec"]
    labels = gateway["template"]["metadata"]["labels"]
    ports = {port["name"] for port in ours(gateway["template"]["spec"])["ports"]}
    for name in ("faktory-gateway", gateway["serviceName"]):
        service = made["Service", name]["spec"]
        assert service["selector"].items() <= labels.items()
        assert {port["targetPort"] for port in service["ports"]} <= ports
    budget = made["PodDisruptionBudget", "faktory-gateway"]["spec"]
    assert budget["selector"]["matchLabels"].items() <= labels.items()


def test_jobs_and_deployments_have_the_same_sidecar() -> None:
    of_deployment = ours(pod_of("deployment.yaml", "Deployment"))
    of_job = ours(pod_of("job.yaml", "Job"))
    for part in (
        "image",
        "restartPolicy",
        "env",
        "ports",
        "startupProbe",
        "livenessProbe",
        "resources",
        "volumeMounts",
    ):
        assert of_job[part] == of_deployment[part], part


@pytest.mark.parametrize(("file", "kind"), NATIVE)
def test_the_sidecar_is_native_first_and_never_unready(file: str, kind: str) -> None:
    first = pod_of(file, kind)["initContainers"][0]
    assert first is ours({"initContainers": [first]})
    assert first["restartPolicy"] == "Always"
    assert first["startupProbe"]["httpGet"]["path"] == "/startupz"
    assert first["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert "readinessProbe" not in first


@pytest.mark.parametrize(("file", "kind"), WORKLOADS)
def test_settings_are_accepted_without_a_warning(file: str, kind: str, files: Path) -> None:
    assert settings_of(ours(pod_of(file, kind)), files).upstream.host == "faktory.example.com"


def test_the_gateway_refuses_to_start_without_its_password(files: Path) -> None:
    container = ours(pod_of("gateway/statefulset.yaml", "StatefulSet"))
    container["env"] = [entry for entry in container["env"] if not entry["name"].startswith("SIDECAR_LISTEN_PASSWORD")]
    with pytest.raises(StartError, match="SIDECAR_LISTEN_PASSWORD"):
        settings_of(container, files)


@pytest.mark.parametrize(("file", "kind"), WORKLOADS)
def test_the_grace_period_holds_stop_drain_and_margin(file: str, kind: str, files: Path) -> None:
    pod = pod_of(file, kind)
    drain = settings_of(ours(pod), files).drain_timeout
    application = WORST_APPLICATION_STOP if kind != "StatefulSet" else 5.0  # its preStop
    assert pod["terminationGracePeriodSeconds"] >= application + drain + MARGIN


@pytest.mark.parametrize(("file", "kind"), NATIVE)
def test_a_journal_stays_below_its_emptydir(file: str, kind: str, files: Path) -> None:
    pod = pod_of(file, kind)
    [mount] = ours(pod)["volumeMounts"]
    [volume] = [each for each in pod["volumes"] if each["name"] == mount["name"]]
    settings = settings_of(ours(pod), files)
    limit = ANY_SIZE(volume["emptyDir"]["sizeLimit"])
    assert settings.journal_max_bytes <= MOST_OF_A_VOLUME * limit
    assert settings.journal_dir.is_relative_to(mount["mountPath"])
    resources_of = ours(pod)["resources"]
    assert ANY_SIZE(resources_of["requests"]["ephemeral-storage"]) >= limit
    assert ANY_SIZE(resources_of["limits"]["ephemeral-storage"]) > limit


def test_a_gateways_journal_stays_below_its_claim(files: Path) -> None:
    spec = resource("gateway/statefulset.yaml", "StatefulSet")["spec"]
    [claim] = spec["volumeClaimTemplates"]
    bound = settings_of(ours(spec["template"]["spec"]), files).journal_max_bytes
    assert bound <= MOST_OF_A_VOLUME * ANY_SIZE(claim["spec"]["resources"]["requests"]["storage"])


@pytest.mark.parametrize(("file", "kind"), WORKLOADS)
def test_containers_are_confined(file: str, kind: str) -> None:
    pod = pod_of(file, kind)
    for container in containers(pod):
        context = pod.get("securityContext", {}) | container["securityContext"]
        assert context["runAsNonRoot"] is True
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


def test_images_have_the_products_version() -> None:
    images = {
        container["image"]
        for path in all_files()
        for each in resources(path)
        for container in containers(each.get("spec", {}).get("template", {}).get("spec", {}))
    }
    version = sidecar.__version__
    assert images == {f"faktory-sidecar:{version}", f"faktory-sidecar-examples:{version}"}
