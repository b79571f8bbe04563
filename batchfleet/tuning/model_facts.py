"""What a model's folder says of its size, without loading it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_BYTES = {"float32": 4, "float": 4, "float16": 2, "bfloat16": 2, "half": 2}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """0 where the folder does not tell, or there is none here.

    Attributes:
        heads, kv_heads: Of attention; what tensor parallelism divides.
        weights_bytes: Of the files, or of dummy weights by the shape of a dense transformer.
        predicted_tokens: Layers that predict tokens further ahead, which the model brings for speculation (MTP).
    """

    heads: int = 0
    kv_heads: int = 0
    weights_bytes: int = 0
    predicted_tokens: int = 0


def model_facts(model: str | None, vllm_args: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> ModelFacts:
    """Read a folder, or what the Hugging Face cache has under that name. Nothing is fetched."""
    folder = _folder(model, environ) if model else None
    if folder is None:
        return ModelFacts()
    config: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = {**found, **(found.get("text_config") or {})} if isinstance(found, dict) else {}
    heads = _number(config, "num_attention_heads")
    files = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    is_dummy = vllm_args.get("load_format", vllm_args.get("load-format")) == "dummy"
    return ModelFacts(
        heads=heads,
        kv_heads=_number(config, "num_key_value_heads") or heads,
        weights_bytes=_dense_bytes(config, vllm_args) if is_dummy and not files else files,
        predicted_tokens=_number(config, "num_nextn_predict_layers"),
    )


def _folder(model: str, environ: Mapping[str, str]) -> Path | None:
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    home = Path(environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    kept = Path(environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{model.replace('/', '--')}"
    with contextlib.suppress(OSError):
        return kept / "snapshots" / (kept / "refs" / "main").read_text(encoding="utf-8").strip()
    return None


def _dense_bytes(config: Mapping[str, Any], vllm_args: Mapping[str, Any]) -> int:
    """Of a dense transformer with gated feed-forward layers; 0 for another, or where weights are quantized."""
    hidden, inner = _number(config, "hidden_size"), _number(config, "intermediate_size")
    heads, layers = _number(config, "num_attention_heads"), _number(config, "num_hidden_layers")
    quantized = config.get("quantization_config") or vllm_args.get("quantization")
    if not (hidden and inner and heads and layers) or quantized or _number(config, "num_experts", "n_routed_experts"):
        return 0
    head = _number(config, "head_dim") or hidden // heads
    attention = 2 * hidden * head * (heads + (_number(config, "num_key_value_heads") or heads))
    embeddings = _number(config, "vocab_size") * hidden * (1 if config.get("tie_word_embeddings") else 2)
    dtype = vllm_args.get("dtype") or config.get("torch_dtype") or config.get("dtype")
    return (layers * (attention + 3 * hidden * inner) + embeddings) * _BYTES.get(str(dtype), 2)


def _number(config: Mapping[str, Any], *names: str) -> int:
    return next((config[name] for name in names if isinstance(config.get(name), int)), 0)
