"""A tiny random Llama with weights and tokenizer, made offline.

It is real enough for every part of vLLM, and small enough for two CPU cores.
`python -m tests.integration.tiny_model DIRECTORY` writes it to DIRECTORY, with a chat template.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from pydantic import JsonValue

from tests.isolation import shared_cache

MAX_MODEL_LEN = 512
MAX_VOCABULARY_TOKENS = 512
HIDDEN_SIZE = 128
ADAPTER_RANK = 8
INITIALIZER_RANGE = 0.1
"""Wide enough that the likeliest token is so by far: what it says does not hang on rounding."""
FORMAT = 3
"""Goes up when the files change, so that a model cached by an older version is not used."""

SECOND_END_ID = 95
"""The token `~`: ends a text too, as the generation_config says and nothing else does.

The sampling parameters there are for nobody to use.
"""

TRAINING_LINES = (
    "The quick brown fox jumps over the lazy dog.",
    "What is the capital of France? Paris is the capital of France.",
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
    "Answer with one number: 1 2 3 4 5 6 7 8 9 0.",
)

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] -%}{{ raise_exception('no such role: ' + "
    "message['role']) }}{%- endif -%}"
    "<|{{ message['role'] }}|>{{ message['content'] }}\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)

THINKING_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
"""In the tokenizer of the model that thinks, in this order, after the first two."""
END_OF_THINKING_ID = 3
TOOL_TEMPLATE = (
    "{%- if tools -%}tools: {% for tool in tools %}{{ tool['function']['name'] }} {% endfor %}\n{%- endif -%}"
    "{%- for message in messages -%}"
    "<|{{ message['role'] }}|>{{ message['content'] or '' }}"
    "{%- for call in message['tool_calls'] or [] -%} calls {{ call['function']['name'] }}{%- endfor -%}\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
IMAGE_TEMPLATE = (
    "{%- for message in messages -%}<|{{ message['role'] }}|>"
    "{%- if message['content'] is string -%}{{ message['content'] }}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }}{%- endfor -%}{%- endif -%}\n"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)
IMAGE_TOKENS = ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
"""In the tokenizer of the model that sees, in this order, after the first two."""
IMAGE_PIXELS, PATCH_PIXELS, PATCHES_PER_SIDE = 56, 14, 2
"""Of a side: the image as the model sees it, a patch; patches that become one token."""
TOKENS_OF_AN_IMAGE = (IMAGE_PIXELS // PATCH_PIXELS // PATCHES_PER_SIDE) ** 2
LABELS = {0: "bad", 1: "fair", 2: "good"}

ON_A_GPU = Path("/dev/nvidiactl").exists()
ENGINE_ARGUMENTS: dict[str, JsonValue] = {
    "enforce_eager": True,
    "max_model_len": MAX_MODEL_LEN,
    "max_num_seqs": 64,
    "dtype": "float16" if ON_A_GPU else "float32",
    "seed": 0,
    # Of a GPU's memory, or on a CPU of the host's: vLLM wants nine tenths of it free unless told otherwise, and some
    # tests have two engines at once.
    "gpu_memory_utilization": 0.25,
}
"""What a vLLM engine needs to serve it.

In float32, so that the same question has the same answer twice; but a GPU's adapter kernels know none.
"""


def cached(*, chat_template: bool = True) -> Path:
    """The model's folder, made by whichever process comes first."""
    kind = "chat" if chat_template else "plain"
    folder = shared_cache() / f"tiny-llama-{FORMAT}-{kind}"
    if not folder.exists():
        made = Path(tempfile.mkdtemp(dir=folder.parent))
        make(made, chat_template=CHAT_TEMPLATE if chat_template else None)
        try:
            made.rename(folder)
        except OSError:  # Another process was first; its files are the same.
            shutil.rmtree(made)
    return folder


def cached_for(task: str) -> Path:
    """The folder of a model that thinks and calls tools (`think`), sees images, embeds, classifies or scores pairs."""
    folder = shared_cache() / f"tiny-llama-{FORMAT}-{task}"
    if not folder.exists():
        made = Path(tempfile.mkdtemp(dir=folder.parent))
        if task == "think":
            _save_model(made, make_tokenizer(made, TOOL_TEMPLATE, THINKING_TOKENS))
        elif task == "see":
            _save_vision_model(made, make_tokenizer(made, IMAGE_TEMPLATE, IMAGE_TOKENS))
        else:
            _save_pooling_model(made, task, make_tokenizer(made, None))
        try:
            made.rename(folder)
        except OSError:
            shutil.rmtree(made)
    return folder


def _save_vision_model(folder: Path, vocabulary_tokens: int) -> None:
    """An Idefics3: one of the few that vLLM serves where there is Pillow and no torchvision."""
    transformers = import_module("transformers")
    import_module("torch").manual_seed(0)
    vision = {
        "hidden_size": 64,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": IMAGE_PIXELS,
        "patch_size": PATCH_PIXELS,
        "initializer_range": INITIALIZER_RANGE,
    }
    text = transformers.LlamaConfig(
        vocab_size=vocabulary_tokens,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=2 * HIDDEN_SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2 * MAX_MODEL_LEN,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=INITIALIZER_RANGE,
    )
    config = transformers.Idefics3Config(
        vision_config=vision,
        text_config=text,
        image_token_id=2,
        scale_factor=PATCHES_PER_SIDE,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=INITIALIZER_RANGE,
    )
    transformers.Idefics3ForConditionalGeneration(config).save_pretrained(folder)
    side = {"longest_edge": IMAGE_PIXELS}
    transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessorPil(
            size=side, max_image_size=side, do_image_splitting=False
        ),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
        image_seq_len=TOKENS_OF_AN_IMAGE,
        chat_template=IMAGE_TEMPLATE,
    ).save_pretrained(folder)


def _save_pooling_model(folder: Path, task: str, vocabulary_tokens: int) -> None:
    transformers = import_module("transformers")
    import_module("torch").manual_seed(0)
    labels = {0: "fits"} if task == "score" else LABELS
    is_embedding = task == "embed"
    config = transformers.LlamaConfig(
        vocab_size=vocabulary_tokens,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=2 * HIDDEN_SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2 * MAX_MODEL_LEN,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=INITIALIZER_RANGE,
        **({"is_matryoshka": True} if is_embedding else {"id2label": labels}),
    )
    model = transformers.LlamaModel if is_embedding else transformers.LlamaForSequenceClassification
    model(config).save_pretrained(folder)


def make(folder: Path, *, chat_template: str | None = CHAT_TEMPLATE) -> None:
    """Write the model's and the tokenizer's files into `folder`, which exists.

    `chat_template` None gives a model without one.
    """
    _save_model(folder, vocabulary_tokens=make_tokenizer(folder, chat_template))


def make_adapter(folder: Path) -> None:
    """Write a LoRA adapter for the model into `folder`, which exists.

    Its random weights are large enough to change what the model says.
    """
    torch = import_module("torch")
    generator = torch.Generator().manual_seed(1)
    weights = {}
    for layer in range(2):
        for module in ("q_proj", "v_proj"):
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            weights[f"{name}.lora_A.weight"] = torch.randn(ADAPTER_RANK, HIDDEN_SIZE, generator=generator)
            weights[f"{name}.lora_B.weight"] = torch.randn(HIDDEN_SIZE, ADAPTER_RANK, generator=generator)
    import_module("safetensors.torch").save_file(weights, str(folder / "adapter_model.safetensors"))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "tiny",
        "r": ADAPTER_RANK,
        "lora_alpha": 2 * ADAPTER_RANK,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
    }
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")


def _save_model(folder: Path, vocabulary_tokens: int) -> None:
    transformers = import_module("transformers")
    import_module("torch").manual_seed(0)
    config = transformers.LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=vocabulary_tokens,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=2 * HIDDEN_SIZE,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=2 * MAX_MODEL_LEN,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=INITIALIZER_RANGE,
    )
    model = transformers.LlamaForCausalLM(config)
    model.generation_config.update(
        do_sample=True, temperature=1.9, top_k=3, repetition_penalty=1.5, eos_token_id=[1, SECOND_END_ID]
    )
    model.save_pretrained(folder)


def make_tokenizer(folder: Path, chat_template: str | None = CHAT_TEMPLATE, more: tuple[str, ...] = ()) -> int:
    """Write a byte-level tokenizer into `folder`; returns how many tokens it knows."""
    tokenizers = import_module("tokenizers")
    bpe = tokenizers.ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        TRAINING_LINES, vocab_size=MAX_VOCABULARY_TOKENS, special_tokens=["<s>", "</s>", *more], show_progress=False
    )
    fast = import_module("transformers").PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer,  # The wrapper has no public way to its tokenizer.
        bos_token="<s>",  # noqa: S106 (a name of a token)
        eos_token="</s>",  # noqa: S106 (a name of a token)
    )
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    for name, field in (("tokenizer.json", "added_tokens"), ("tokenizer_config.json", "added_tokens_decoder")):
        _make_visible(folder / name, field, more)
    return len(fast)


def _make_visible(file: Path, field: str, tokens: tuple[str, ...]) -> None:
    """Have these tokens stay in the text, as in models that think: it is by them that a parser finds its way."""
    content = json.loads(file.read_text())
    added = content.get(field, [])
    for token in added.values() if isinstance(added, dict) else added:
        if token["content"] in tokens:
            token["special"] = False
    file.write_text(json.dumps(content))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    make(target)
