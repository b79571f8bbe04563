"""The images that ours are built on are named by version and digest, the same wherever they are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXACT = re.compile(r"[a-z/-]+:v?\d+\.\d+\.\d+[a-z0-9.-]*@sha256:[0-9a-f]{64}")
WHERE = {
    "PYTHON_IMAGE": ("Dockerfile", "docker-compose.yml", ".env.example"),
    "VLLM_IMAGE": ("Dockerfile", "docker-compose.yml", ".env.example"),
    "REDIS_IMAGE": ("docker-compose.yml", ".env.example"),
}


@pytest.mark.parametrize("name", WHERE)
def test_an_image_is_pinned_alike_everywhere(name: str) -> None:
    """It is pinned by a whole version for people and a digest for Docker.

    Both may be changed in `.env` without touching a file of ours.
    """
    texts = [(ROOT / file).read_text() for file in WHERE[name]]

    named = {found for text in texts for found in re.findall(rf"{name}(?::-|=)([^}}\s]+)", text)}

    assert len(named) == 1
    assert EXACT.fullmatch(named.pop())
    assert all(name in text for text in texts)


def test_nothing_else_is_built_upon() -> None:
    """Every FROM is one of these, or a stage before it."""
    text = (ROOT / "Dockerfile").read_text()

    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${PYTHON_IMAGE}", "${VLLM_IMAGE}"}
    assert "# syntax" not in text
