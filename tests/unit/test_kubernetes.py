"""The manifests of deploy/kubernetes keep to the rules that kube-score and the restricted Pod Security Standard set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from batchfleet.admin.control import AFTER_DRAIN_S
from batchfleet.cli.main import command_parser
from batchfleet.metrics import names
from batchfleet.settings.load import load_settings

ROOT = Path(__file__).parents[2]
PLAIN = ROOT / "deploy/kubernetes/plain"
JOB = ROOT / "deploy/kubernetes/submit-job.yaml"
NAMED_METRIC = re.compile(r"batchfleet_[a-z_]+")
ROOM = ("cpu", "memory", "ephemeral-storage")
Manifest = dict[str, Any]


def manifests(folder: Path) -> Iterator[Manifest]:
    """All objects, kustomizations left out."""
    for path in sorted(folder.rglob("*.yaml")):
        if path.name != "kustomization.yaml":
            yield from filter(None, yaml.load_all(path.read_text(), yaml.CSafeLoader))


OBJECTS = list(manifests(PLAIN))
WORKLOADS = [one for one in OBJECTS if one["kind"] in {"Deployment", "StatefulSet"}]
WORKERS = [one for one in WORKLOADS if one["metadata"]["labels"].get("batchfleet/role") == "worker"]
PODS = [*WORKLOADS, yaml.safe_load(JOB.read_text())]
each_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda one: one["metadata"]["name"])
each_pod = pytest.mark.parametrize("workload", PODS, ids=lambda one: one["metadata"]["name"])
each_worker = pytest.mark.parametrize("worker", WORKERS, ids=lambda one: one["metadata"]["name"])


def of_kind(kind: str) -> list[Manifest]:
    """Those objects."""
    return [one for one in OBJECTS if one["kind"] == kind]


def pod_of(workload: Manifest) -> Manifest:
    """What its pods are like."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def container_of(workload: Manifest) -> Manifest:
    """Its only one."""
    (container,) = pod_of(workload)["containers"]
    return dict(container)


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """As Kubernetes does, for the two kinds of conditions that stand here."""
    excluded = {(one["key"], value) for one in selector.get("matchExpressions", ()) for value in one["values"]}
    assert all(one["operator"] == "NotIn" for one in selector.get("matchExpressions", ()))
    wanted = selector.get("matchLabels", {}).items()
    return all(labels.get(key) == value for key, value in wanted) and not excluded & set(labels.items())


def settings_of(config_map: str, folder: Path) -> Any:  # noqa: ANN401 (what load_settings gives)
    """The settings in a ConfigMap, read as a program does."""
    (found,) = (one for one in of_kind("ConfigMap") if one["metadata"]["name"] == config_map)
    (folder / "fleet.yaml").write_text(found["data"]["fleet.yaml"])
    return load_settings(folder / "fleet.yaml", {}, {}).settings


@each_pod
def test_a_container_has_bounds_and_few_rights(workload: Manifest) -> None:
    """No root, no capabilities, nothing writable but volumes, no token of the API, and a bound on all it takes."""
    pod, container = pod_of(workload), container_of(workload)
    security = container["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert not security["privileged"] | security["allowPrivilegeEscalation"]
    assert min(security["runAsUser"], security["runAsGroup"]) > 10_000
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    resources = container["resources"]
    assert all(resources[side][what] for side in ("requests", "limits") for what in ROOM)
    assert re.search(r":v?\d+\.\d+\.\d+", container["image"])


@each_pod
def test_what_is_written_is_a_volume(workload: Manifest) -> None:
    """Each volume is mounted, of a kind that the restricted standard allows, and what is not kept is bounded."""
    volumes = {one["name"]: one for one in pod_of(workload)["volumes"]}
    volumes |= {one["metadata"]["name"]: one for one in workload["spec"].get("volumeClaimTemplates", ())}
    mounts = {one["name"]: one["mountPath"] for one in container_of(workload)["volumeMounts"]}

    assert volumes.keys() == mounts.keys()
    assert mounts["tmp"] == "/tmp"  # noqa: S108 (in a container)
    kinds = {kind for one in volumes.values() for kind in one if kind != "name"}
    assert kinds <= {"emptyDir", "configMap", "persistentVolumeClaim", "metadata", "spec"}
    assert all(one["emptyDir"]["sizeLimit"] for one in volumes.values() if "emptyDir" in one)


@each_workload
def test_probes_differ_and_only_what_can_heal_it_restarts_a_pod(workload: Manifest) -> None:
    """A Redis that is away takes a pod out of service; it never boots an engine anew."""
    container = container_of(workload)

    assert container["livenessProbe"] != container["readinessProbe"]
    assert container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"] >= 300
    commands = [container[probe].get("exec", {}).get("command", []) for probe in ("readinessProbe", "livenessProbe")]
    if any("health" in command for command in commands):
        assert ["--redis-may-be-away" in command for command in commands] == [False, True]


@each_pod
def test_what_runs_in_a_container_is_a_command_of_ours(workload: Manifest) -> None:
    """Arguments, probes and hooks are read by the program's own parser."""
    container = container_of(workload)
    if container["name"] == "redis":
        return
    hook = container.get("lifecycle", {}).get("preStop", {}).get("exec", {}).get("command", [])
    probes = [
        container.get(probe, {}).get("exec", {}).get("command", []) for probe in ("readinessProbe", "livenessProbe")
    ]
    lines = [container["args"], *(command[1:] for command in (hook, *probes) if command[:1] == ["batchfleet"])]

    for line in lines:
        command_parser(line).parse_args(line)
    assert all(name.startswith(("BATCHFLEET_", "HF_")) for name in (one["name"] for one in container["env"]))


@each_workload
def test_labels_join_what_belongs_together(workload: Manifest) -> None:
    """Each pod is its workload's, in one disruption budget, and closed both ways but for what policies open."""
    labels = workload["spec"]["template"]["metadata"]["labels"]

    assert selects(workload["spec"]["selector"], labels)
    budgets = [one for one in of_kind("PodDisruptionBudget") if selects(one["spec"]["selector"], labels)]
    assert len(budgets) == 1
    policies = [one["spec"] for one in of_kind("NetworkPolicy") if selects(one["spec"]["podSelector"], labels)]
    assert any(one["policyTypes"] == ["Ingress", "Egress"] and "ingress" not in one for one in policies)
    if workload["spec"]["replicas"] > 1:
        assert "podAntiAffinity" in pod_of(workload)["affinity"]


def test_services_select_pods_and_redis_has_its_own() -> None:
    """A Service names a port that its pods have; that of the StatefulSet is headless."""
    for service in of_kind("Service"):
        found = [
            one for one in WORKLOADS
            if selects({"matchLabels": service["spec"]["selector"]}, one["spec"]["template"]["metadata"]["labels"])
        ]  # fmt: skip
        assert len(found) == 1
        ports = {port["name"] for port in container_of(found[0])["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    (redis,) = of_kind("StatefulSet")
    (headless,) = (one for one in of_kind("Service") if one["spec"].get("clusterIP") == "None")
    assert redis["spec"]["serviceName"] == headless["metadata"]["name"]


def test_secrets_are_named_and_not_there() -> None:
    """Passwords, keys and tokens come from one Secret that its user makes."""
    env = [one for workload in WORKLOADS for one in container_of(workload)["env"]]

    assert not of_kind("Secret")
    asked = {one["name"]: one["valueFrom"]["secretKeyRef"]["key"] for one in env if "valueFrom" in one}
    assert asked == {
        "REDIS_PASSWORD": "redis-password", "BATCHFLEET_REDIS_PASSWORD": "redis-password",
        "BATCHFLEET_GATEWAY_KEYS": "gateway-keys", "HF_TOKEN": "hf-token", "BATCHFLEET_API_KEY": "api-key",
    }  # fmt: skip
    assert not [one["name"] for one in env if "value" in one and re.search("PASSWORD|KEY|TOKEN", one["name"])]


@each_worker
def test_a_worker_is_given_the_time_that_it_drains_for(worker: Manifest, tmp_path: Path) -> None:
    """Kubernetes counts preStop into terminationGracePeriodSeconds: drain_s, an engine's end, and a margin fit."""
    settings = settings_of(worker["metadata"]["name"], tmp_path)
    container = container_of(worker)

    assert container["lifecycle"]["preStop"]["exec"]["command"][:3] == ["batchfleet", "drain", "--here"]
    drains_s = settings.leases.drain_s + AFTER_DRAIN_S
    assert pod_of(worker)["terminationGracePeriodSeconds"] >= drains_s + 30
    boots_s = container["startupProbe"]["failureThreshold"] * container["startupProbe"]["periodSeconds"]
    assert boots_s > settings.model.generator_settings.server_startup_timeout
    assert pod_of(worker)["shareProcessNamespace"] is True


@each_worker
def test_a_worker_is_scaled_by_what_its_model_is_asked(worker: Manifest, tmp_path: Path) -> None:
    """By a metric that there is, of that model, which the gateway takes questions for even while nobody serves it."""
    (scaled,) = (
        one["spec"] for one in of_kind("ScaledObject")
        if one["spec"]["scaleTargetRef"]["name"] == worker["metadata"]["name"]
    )  # fmt: skip
    (trigger,) = scaled["triggers"]
    query = trigger["metadata"]["query"]
    model = settings_of(worker["metadata"]["name"], tmp_path).model_name

    assert set(NAMED_METRIC.findall(query)) == {names.UNANSWERED.full, names.REDIS_UP.full}
    assert f'model="{model}"' in query
    assert trigger["metadata"]["ignoreNullValues"] == "false"
    assert scaled["minReplicaCount"] == 0
    assert scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"] == {"selectPolicy": "Disabled"}
    assert model in settings_of("batchfleet", tmp_path).processing.scaled_models


def test_prometheus_finds_the_ports_and_labels_that_the_rule_names() -> None:
    """The PodMonitor takes the pods that have metrics, and gives the label that the query asks for."""
    (monitor,) = of_kind("PodMonitor")
    ports = {port["name"] for one in WORKLOADS for port in container_of(one)["ports"]}

    assert {one["port"] for one in monitor["spec"]["podMetricsEndpoints"]} <= ports
    labels = {re.sub(r"\W", "_", name) for name in monitor["spec"]["podTargetLabels"]}
    (scaled, *_) = of_kind("ScaledObject")
    asked = set(re.findall(r"(\w+)=", scaled["spec"]["triggers"][0]["metadata"]["query"]))
    assert asked - labels == {"namespace", "model"}


def test_a_job_that_submits_reaches_redis_and_stays_ended() -> None:
    """Policies let its pods through; a pod that is lost is replaced, and what repeating would not mend ends it."""
    job = PODS[-1]["spec"]
    labels = job["template"]["metadata"]["labels"]

    (queue,) = (one["spec"] for one in of_kind("NetworkPolicy") if one["metadata"]["name"] == "batchfleet-queue")
    assert selects(queue["podSelector"], labels)
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["values"] == [1, 2]
    assert job["template"]["spec"]["restartPolicy"] == "Never"


def test_redis_is_the_one_of_compose() -> None:
    """By the same tag and digest, and the chart's version is the project's."""
    compose = (ROOT / "docker-compose.yml").read_text()
    chart = yaml.safe_load((ROOT / "deploy/kubernetes/chart/Chart.yaml").read_text())
    version = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)

    (redis,) = of_kind("StatefulSet")
    assert container_of(redis)["image"] in compose
    assert version is not None
    assert chart["appVersion"] == version[1]
