"""The two images hold no secret and nothing of the checkout but the packages, and do not run as root.

Also tested is what vLLM's image must have for ours.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.compose.composed import FILES, ROOT, Composed

SECRET = "hunter2hunter2"  # noqa: S105 (that is the test)
STAND_IN = "vllm/vllm-openai:stand-in"
"""An image in the place of vLLM's own, which is 10 GB.

It has the same entry point, folder, users and caches, and packages with the names of two of vLLM's.
"""
PYTHON = os.environ.get("PYTHON_IMAGE", "")
ARGUMENTS = ["--build-arg", f"PYTHON_IMAGE={PYTHON}"] if PYTHON else []

DOCKERFILE = """\
ARG PYTHON_IMAGE=python:3.12-slim
FROM ${PYTHON_IMAGE}
RUN useradd --uid 2000 --gid 0 --create-home --home-dir /home/vllm vllm
COPY packages /tmp/packages
RUN cp --recursive /tmp/packages/. "$(python3 -c 'import site; print(site.getsitepackages()[0])')"
ENV LD_LIBRARY_PATH=/usr/local/nvidia/lib64:/usr/local/cuda/lib64 VLLM_USAGE_SOURCE=production-docker-image
WORKDIR /vllm-workspace
USER %s
ENTRYPOINT ["vllm", "serve"]
"""


def docker(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one of its commands to its end."""
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=check, timeout=280)  # noqa: S603, S607 (ours)


def stand_in(folder: Path, tag: str, *, user: str = "root", **packages: str) -> None:
    """Build an image that has these packages and versions, and no other but Python's own."""
    for name, version in packages.items():
        (folder / "packages" / name).mkdir(parents=True)
        (folder / "packages" / name / "__init__.py").write_text(f"__version__ = {version!r}\n")
        (folder / "packages" / f"{name}-{version}.dist-info").mkdir()
        (folder / "packages" / f"{name}-{version}.dist-info/METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    (folder / "Dockerfile").write_text(DOCKERFILE % user)
    docker("build", "--quiet", "--tag", tag, *ARGUMENTS, str(folder))


def build_on(base: str) -> subprocess.CompletedProcess[str]:
    """Build our GPU image on that one."""
    return docker(
        "build",
        "--target",
        "gpu-worker",
        "--tag",
        "batchfleet/gpu-worker:try",
        *ARGUMENTS,
        f"--build-arg=VLLM_IMAGE={base}",
        str(ROOT),
        check=False,
    )


def in_image(image: str, script: str, *options: str) -> str:
    """What a script prints in a container that has no network and may write nothing."""
    return docker(
        "run", "--rm", "--read-only", "--network", "none", *options, "--entrypoint", "sh", image, "-c", script
    ).stdout


@pytest.fixture(scope="module")
def images(built: None, tmp_path_factory: pytest.TempPathFactory) -> list[str]:  # noqa: ARG001 (built for its effect)
    """Both images, as they are built where `.env` holds secrets."""
    # `tomlkit` is one that we bring as well.
    stand_in(tmp_path_factory.mktemp("stand-in"), STAND_IN, vllm="0.31.0", torch="2.11.0", tomlkit="99.0")
    fleet = Composed("batchfleet-test", Path("/tmp"), {"HF_TOKEN": SECRET, "VLLM_IMAGE": STAND_IN}, [ROOT / FILES[0]])  # noqa: S108 (nothing is written)
    fleet.environ["REDIS_PASSWORD"] = SECRET
    fleet.compose("build", "batcher", "gpu-worker")
    return [f"batchfleet/{image}:0.1.0" for image in ("fleet", "gpu-worker")]


def test_dockers_own_checks_find_nothing() -> None:
    """`docker build --check`, of whose rules any warning is an error."""
    if "--check" not in docker("buildx", "build", "--help").stdout:
        pytest.skip("docker build --check needs buildx 0.15")
    bases = [*ARGUMENTS, f"--build-arg=VLLM_IMAGE={PYTHON}"] if PYTHON else []

    checked = docker(
        "build", "--check", *bases, "--build-arg=BUILDKIT_DOCKERFILE_CHECK=error=true", str(ROOT), check=False
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "Check complete, no warnings found." in checked.stdout


def test_both_images_run_the_same_command_and_none_as_root(images: list[str]) -> None:
    """Both are built from one Dockerfile; what is tested of the one holds for the other.

    The entry point of vLLM's image is none of ours.
    """
    for image in images:
        said = in_image(image, "id -u; batchfleet --help")
        assert said.startswith("10001\n")
        assert "usage: batchfleet" in said
        config = json.loads(docker("image", "inspect", "--format", "{{json .Config}}", image).stdout)
        assert (config["User"], config["Entrypoint"], config["WorkingDir"]) == ("10001:10001", ["batchfleet"], "/tmp")  # noqa: S108 (in the image)
        assert not config.get("Cmd") or image.startswith("batchfleet/fleet")


def test_no_image_holds_a_secret_or_a_file_that_is_only_ours(images: list[str]) -> None:
    """The secret is neither in an image's history nor in its files.

    Of the checkout there are only the packages: no tests, no documents, no Git.
    """
    for image in images:
        assert SECRET not in docker("history", "--no-trunc", image).stdout
        grep = f"grep -rl {SECRET} / --exclude-dir=proc --exclude-dir=sys 2>/dev/null"
        assert in_image(image, f"{grep}; true") == ""
        find = (
            "find / -xdev -name .git -o -name '.env*' -o -name .cache -o -path /opt/batchfleet/tests -o -path "
            "/opt/batchfleet/docs"
        )
        assert in_image(image, f"{find} 2>/dev/null; true") == ""


def test_our_own_layers_are_small(images: list[str]) -> None:
    """On top of Python's image: our packages and what they need, without pip's cache."""
    for image in images:
        layers = docker("history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", image).stdout.splitlines()
        ours = [int(layer.split()[0]) for layer in layers if "batchfleet" in layer]
        total = int(docker("image", "inspect", "--format", "{{.Size}}", image).stdout)
        print(f"{image}: {total / 1e6:.0f} MB, of which ours {sum(ours) / 1e6:.0f} MB")
        assert 0 < sum(ours) < 150_000_000


def test_the_gpu_image_leaves_the_packages_of_its_base_alone(images: list[str]) -> None:
    """They are where they were, of the versions that they had, and go before ours; ours fill in what is missing."""
    script = (
        "import redis, tomlkit, torch, vllm; print(*(one.__file__ for one in (vllm, torch, tomlkit, redis)), "
        "tomlkit.__version__)"
    )

    vllm, torch, shared, only_ours, version = in_image(images[1], f'python3 -c "{script}"').split()

    assert {Path(path).parts[1] for path in (vllm, torch, shared)} == {"usr"}
    assert only_ours.startswith("/opt/batchfleet/")
    assert version == "99.0"


def test_the_gpu_image_writes_to_its_cache_and_nowhere_else(images: list[str]) -> None:
    """A new volume at /cache belongs to the user.

    Models and compiled kernels go there, since it is the home, with Hugging Face's folder in it.
    """
    script = (
        'touch /cache/here ~/there && mkdir -p "$HF_HOME" && echo "$HOME $HF_HOME $(whoami)"; touch /opt/batchfleet/no '
        "2>&1 || true"
    )

    wrote, refused = in_image(images[1], script, "--volume", "/cache").splitlines()

    assert wrote == "/cache /cache/huggingface batchfleet"
    assert "Read-only file system" in refused


@pytest.mark.slow
def test_a_base_image_that_runs_as_somebody_else_will_do(built: None, tmp_path: Path) -> None:  # noqa: ARG001 (then all layers are there)
    """The makers of vLLM also build one whose user is not root."""
    stand_in(tmp_path, f"{STAND_IN}-user", user="vllm", vllm="0.31.0", torch="2.11.0")

    built_on = build_on(f"{STAND_IN}-user")

    assert built_on.returncode == 0, built_on.stderr[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("packages", "complaint"),
    [
        ({"vllm": "0.31.0"}, "torch is not in the base image"),
        ({"vllm": "0.31.0", "torch": "2.11.0", "redis": "5.0.1"}, "needs redis[hiredis]<9,>=8.1; there is 5.0.1"),
    ],
    ids=["no torch", "an old redis"],
)
def test_a_base_image_that_does_not_fit_is_noticed_while_building(
    built: None,  # noqa: ARG001 (as above)
    tmp_path: Path,
    packages: dict[str, str],
    complaint: str,
) -> None:
    """In one line, and not by the first worker that starts on it."""
    stand_in(tmp_path, f"{STAND_IN}-unfit", **packages)

    failed = build_on(f"{STAND_IN}-unfit")

    assert failed.returncode != 0
    assert complaint in failed.stderr
    shutil.rmtree(tmp_path)
