"""The shape of Llama-2-7B without its weights: the real amount of work for a GPU, with `load_format: dummy`.

`python -m tests.gpu.llama_7b DIRECTORY` writes configuration and tokenizer to DIRECTORY, offline.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.integration.tiny_model import make_tokenizer

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-06,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "bfloat16",
}
"""As published with the model (Touvron et al. 2023, arXiv:2307.09288), but for the tokens' ids.

Those are the ids of the small tokenizer.
"""


def make(folder: Path) -> None:
    """Write the files into `folder`, which exists."""
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1), encoding="utf-8")
    make_tokenizer(folder)


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    make(target)
