"""`python -m scripts.reference.settings` prints docs/configuration.md.

Every setting, from the fields that define them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from batchfleet.settings import setting_names
from batchfleet.settings.sections.section import DAY_S, HOUR_S, KIB, MIB, number_text
from batchfleet.settings.setting_names import KeyPath

HEAD = """\
# Settings

<!-- Written by `.venv/bin/python -m scripts.reference.settings >docs/configuration.md`. Edit scripts/reference/settings.py or batchfleet/settings/sections/ instead. -->

Each of these wins over those before it: the default in the tables below; a YAML file (`--config FILE`); a non-empty environment variable; the command
line (`--model`, `--redis`, `--set KEY=VALUE`). `batchfleet config --config FILE` prints what takes effect, secrets masked. An unknown key, wrong type or
impossible value is an error (exit code 2) that names the file, the line and the nearest known key.

    model:
      generator_settings:
        hf_model_id: "meta-llama/Llama-2-7b-chat-hf"
        vllm_args:                  # any engine argument of vLLM
          tensor_parallel_size: 2
          max_num_seqs: 256
        temperature: 0.0
        max_tokens: 512
        batch_size: 16

- **Environment.** `BATCHFLEET_SECTION_KEY`, such as `BATCHFLEET_REDIS_URL`; settings of `model.generator_settings` and `processing` without the
  section, such as `BATCHFLEET_HF_MODEL_ID`.
- **Fragments.** `generator_settings:`, `vllm_args:`, settings of `generator_settings` and `processing`, and others with a unique name may stand at the top of
  the file: `batch_size: 16` alone is valid.
- **vllm_args** of file, environment and command line are merged key by key; all other values are replaced as a whole.
- **Capacity.** A worker keeps up to `parallel_workers` x `batch_size` questions in its engine, by default 1.5 times the engine's `max_num_seqs`, so that
  no step runs short while the next batch is on its way. It takes a batch as soon as there is room for one question; the part above `max_num_seqs` is filled
  only while more batches wait than there are workers.
- **Secrets** (marked below) belong in the environment. They appear in no log, record or error.
- **An existing server** needs `server`, and `port`, `model` and `api_key` as the server does; `boot_local` is then false unless a model to load is named.
- **distllm's evaluation configurations** load as they are: `questions_file`, `output_directory` and `output_prefix` apply unless the command line says
  otherwise, and `base_url` is `server`. A warning names what has no meaning here (`rag`, the grader, checkpoints, which are always on).
"""

UNITS = ((DAY_S, "day"), (HOUR_S, "hour"))


def text() -> str:
    """The whole reference, as Markdown."""
    sections = [
        path
        for path in setting_names.FIELDS
        if path in setting_names.SECTIONS and any(setting[:-1] == path for setting in setting_names.SETTINGS)
    ]
    return "\n".join([HEAD, *("\n".join(_section(path)) for path in sections)])


def _section(section: KeyPath) -> Iterator[str]:
    yield f"## {'.'.join(section)}\n"
    yield f"{_about(section)}\n"
    yield "| setting | takes | default | meaning |"
    yield "|---|---|---|---|"
    for path in setting_names.SETTINGS:
        if path[:-1] == section:
            secret = " **Secret.**" if path in setting_names.SECRETS else ""
            yield f"| `{path[-1]}` | {_takes(path)} | {_default(path)} | {setting_names.FIELDS[path].description}{secret} |"
    yield ""


def _about(section: KeyPath) -> str:
    return " ".join((setting_names.KINDS[section][0].__doc__ or "").split())


def _takes(path: KeyPath) -> str:
    """As error messages say it, in fewer words."""
    text = setting_names.expected(path).partition(" (default ")[0]
    text = re.sub(r"at least (\S+) and at most (\S+)", r"\1 to \2", text)
    text = re.sub(r", more than (\S+) and at most (\S+)", r" above \1, to \2", text)
    return text.replace("a whole number", "integer").replace("a number", "number").replace("a text", "text")


def _default(path: KeyPath) -> str:
    value = setting_names.FIELDS[path].get_default(call_default_factory=True, validated_data={})
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return number_text(value) + _in_words(path[-1], value)
    return "none" if value == {} else f"`{value}`"


def _in_words(name: str, value: float) -> str:
    """Large seconds and bytes in larger units; nothing for what can be read as it is."""
    if name.endswith("_bytes"):
        return f" ({value // MIB} MiB)" if value >= MIB else f" ({value // KIB} KiB)"
    for unit, word in UNITS if name.endswith("_s") else ():
        if value >= unit and value % unit == 0:
            return f" ({number_text(value / unit)} {word}{'s' if value > unit else ''})"
    return ""


if __name__ == "__main__":
    print(text(), end="")
