"""Chart and plain manifests by Helm's, kustomize's and the API's own rules; scripts/test-kubernetes gets the tools."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.processes import ROOT

TOOLS = os.environ.get("KUBERNETES_TOOLS", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not TOOLS, reason="KUBERNETES_TOOLS names no folder of helm and kubectl: scripts/test-kubernetes"
    ),
]
KUBERNETES = ROOT / "deploy/kubernetes"
CHART = KUBERNETES / "chart"
OLDEST, NEWEST = "1.29", "1.37"
EVERYTHING = ("--set", "keda.enabled=true,monitoring.podMonitor=true,keda.scaleIn=stepwise,redis.enabled=false")
OWN_REDIS = ("--set", "redis.url=rediss://queue.example:6379/0,images.pullSecrets[0].name=registry")
HYBRID = """
workers:
  - name: large
    model: large
    gpus: 4
    cache: {claim: models}
    settings: {model: {generator_settings: {hf_model_id: org/large, model: large}}}
  - name: elsewhere
    model: other
    engine: openai
    gpus: 0
    min: 1
    settings: {model: {generator_settings: {server: llm.example, port: 8000, model: other}}}
"""


def tool(name: str, *arguments: str, input_text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of them."""
    return subprocess.run(  # noqa: S603 (those of scripts/kubernetes-tools)
        [f"{TOOLS}/{name}", *arguments], input=input_text, capture_output=True, text=True, check=False, cwd=ROOT
    )


def rendered(*flags: str) -> str:
    """What Helm makes of the chart."""
    done = tool("helm", "template", "batchfleet", str(CHART), "--namespace", "batchfleet", *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def assert_valid(manifests: str, folder: Path) -> None:
    """By the schemas of the API of two versions, where no unknown field is let through."""
    (folder / "all.yaml").write_text(manifests)
    for version in (OLDEST, NEWEST):
        done = tool("venv/bin/kubernetes-validate", "--strict", "--no-warn", "-k", version, str(folder / "all.yaml"))
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_plain_manifests_are_the_chart_as_it_is(tmp_path: Path) -> None:
    """What scripts/render-manifests writes; it is run after a change of the chart."""
    subprocess.run([ROOT / "scripts/render-manifests", tmp_path], check=True, cwd=ROOT, timeout=600)  # noqa: S603

    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.yaml"))
    assert len(written) == 8
    for path in written:
        assert (KUBERNETES / "plain" / path).read_text() == (tmp_path / path).read_text(), path


@pytest.mark.parametrize("flags", [(), (*EVERYTHING, *OWN_REDIS), (*EVERYTHING, *OWN_REDIS, "--values", "hybrid.yaml")])
def test_the_chart_is_valid_whatever_is_chosen(flags: tuple[str, ...], tmp_path: Path) -> None:
    """By Helm's lint and by the API's schemas: as it is, with all that is optional, with models of other shapes."""
    (tmp_path / "hybrid.yaml").write_text(HYBRID)
    flags = tuple(str(tmp_path / flag) if flag == "hybrid.yaml" else flag for flag in flags)

    linted = tool("helm", "lint", "--strict", str(CHART), *flags)
    assert linted.returncode == 0, linted.stdout
    assert_valid(rendered(*flags), tmp_path)


def test_each_shape_has_a_deployment_with_its_slice(tmp_path: Path) -> None:
    """GPUs and tensor_parallel_size agree; what needs no GPU asks for none, and takes the small image."""
    (tmp_path / "hybrid.yaml").write_text(HYBRID)
    objects = [one for one in yaml.safe_load_all(rendered("--values", str(tmp_path / "hybrid.yaml"))) if one]

    pods = {
        one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0]
        for one in objects
        if one["kind"] == "Deployment" and "-worker-" in one["metadata"]["name"]
    }
    settings = {one["metadata"]["name"]: yaml.safe_load(one["data"]["fleet.yaml"]) for one in objects if "data" in one}
    large, elsewhere = pods["batchfleet-worker-large"], pods["batchfleet-worker-elsewhere"]
    assert large["resources"]["limits"]["nvidia.com/gpu"] == 4
    asked = settings["batchfleet-worker-large"]["model"]["generator_settings"]["vllm_args"]
    assert asked == {"tensor_parallel_size": 4}
    assert "nvidia.com/gpu" not in elsewhere["resources"]["limits"]
    assert (large["image"], elsewhere["image"]) == ("batchfleet/gpu-worker:0.1.0", "batchfleet/fleet:0.1.0")
    assert settings["batchfleet"]["processing"]["scaled_models"] == ["large", "other"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("redis.enabled=false",), "redis.url: name the existing Redis, or set redis.enabled"),
        (("workerDefaults.gpus=2", "settings.model.generator_settings.vllm_args.tensor_parallel_size=4"),
         "workers: small has 2 GPUs, but its vllm_args ask for 4"),
        (("gateway.replicas=2",), "gateway: several replicas need storage.accessMode ReadWriteMany"),
        (("workerDefaults.drainSecs=5",), "drainSecs"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_values_is_named(flags: tuple[str, ...], words: str) -> None:
    """Before anything is applied."""
    done = tool("helm", "template", str(CHART), *(part for flag in flags for part in ("--set", flag)))

    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize("components", [["keda", "monitoring"], ["stub"], ["existing-redis", "keda"]])
def test_the_plain_manifests_can_be_put_together(components: list[str], tmp_path: Path) -> None:
    """By kustomize, each of their parts; with KEDA the workers' number is nobody else's."""
    folder = KUBERNETES / f"test-{os.getpid()}"
    folder.mkdir()
    try:
        wanted = {"resources": ["../plain"], "components": [f"../plain/{one}" for one in components]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(wanted))
        done = tool("kubectl", "kustomize", str(folder))
    finally:
        (folder / "kustomization.yaml").unlink(missing_ok=True)
        folder.rmdir()
    assert done.returncode == 0, done.stderr

    assert_valid(done.stdout, tmp_path)
    objects = [one for one in yaml.safe_load_all(done.stdout) if one]
    (worker,) = (
        one for one in objects if one["metadata"]["labels"].get("batchfleet/role") == "worker" and "spec" in one
    )
    assert ("replicas" in worker["spec"]) == ("keda" not in components)
    assert any(one["kind"] == "StatefulSet" for one in objects) == ("existing-redis" not in components)
    if "stub" in components:
        assert "nvidia.com/gpu" not in str(worker["spec"]["template"]["spec"]["containers"])


def test_the_example_can_be_applied(tmp_path: Path) -> None:
    """And the Job that submits. It names images, model and bounds, without a change to a file of ours."""
    done = tool("kubectl", "kustomize", str(KUBERNETES / "example"))

    assert done.returncode == 0, done.stderr
    assert_valid(done.stdout + "\n---\n" + (KUBERNETES / "submit-job.yaml").read_text(), tmp_path)
    assert "registry.example/batchfleet/gpu-worker:0.1.0" in done.stdout
    assert "Qwen2.5" not in done.stdout.replace("# Qwen", "")
