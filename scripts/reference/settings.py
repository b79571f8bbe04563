"""`python -m scripts.reference.settings` prints docs/configuration.md.

Every setting, from the fields that define them.
"""

from __future__ import annotations

from collections.abc import Iterator

from batchfleet.settings import setting_names
from batchfleet.settings.sections.section import DAY_S, HOUR_S, KIB, MIB, number_text
from batchfleet.settings.setting_names import KeyPath

HEAD = """\
# Settings

<!-- Written by `.venv/bin/python -m scripts.reference.settings >docs/configuration.md`. Edit scripts/reference/settings.py or batchfleet/settings/sections/ instead. -->

A setting can be given in four places. Each wins over those before it:

1. the default in the tables below,
2. a YAML file, with `--config FILE`,
3. an environment variable, `BATCHFLEET_...`; an empty one counts as not set,
4. the command line (`--redis`, `--model`).

`batchfleet config --config FILE` prints what takes effect, with secrets masked. An unknown key, a wrong type or an impossible value is an
error that names the file and line, and the nearest known key. Nothing starts then, and the exit code is 2.

    model:
      generator_settings:
        hf_model_id: "meta-llama/Llama-2-7b-chat-hf"
        vllm_args:                  # any engine argument of vLLM
          tensor_parallel_size: 2
          max_num_seqs: 256
        temperature: 0.0
        max_tokens: 512
        batch_size: 16

- **Fragments.** `generator_settings:`, `vllm_args:` and single settings of `generator_settings` and `processing` may stand at the top of the
  file, without what is around them: `batch_size: 16` alone is a valid file. Other settings may too where no two have the same name.
- **vllm_args.** Keys in here are vLLM's. Those of file, environment and command line are joined key by key; of every other setting the last
  value counts as a whole.
- **Capacity.** A worker keeps up to `parallel_workers` x `batch_size` questions in its engine. Without `parallel_workers` it is 1.5 times
  the engine's `max_num_seqs`: half as many as the engine works on wait in it, so that no step runs short while the next batch is on its way.
  What only waits is taken from a backlog alone, while more batches wait than there are workers: the end of a run is spread over all of them.
  It takes the next batch as soon as there is room for one question, so it holds at most its capacity plus one batch, less one question.
- **Secrets** (marked below) belong in the environment rather than in a file. They appear in no log, record or error.
- **An existing server.** `server`, `port`, `model` and, if it asks for one, `api_key`. `boot_local` is false then, unless a model to load is
  named too.
- **Configurations of distllm's evaluation scripts** load as they are. `questions_file`, `output_directory` and `output_prefix` take effect where
  the command line says nothing, `base_url` is `server`. What has no meaning here (`rag`, the grader, checkpoints, which are always on) is named in
  one warning with what to do in its place. Retrieval and scoring are no part of a run.
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
    yield "| setting | takes | default | what it is |"
    yield "|---|---|---|---|"
    for path in setting_names.SETTINGS:
        if path[:-1] == section:
            secret = " **Secret.**" if path in setting_names.SECRETS else ""
            takes = setting_names.expected(path).partition(" (default ")[0]
            yield f"| `{path[-1]}` | {takes} | {_default(path)} | {setting_names.FIELDS[path].description}{secret} |"
    yield (
        f"\nEnvironment: `{setting_names.variable((*section, 'KEY'))}`, such as "
        f"`{setting_names.variable(next(_inside(section)))}`{_short_variable(section)}.\n"
    )


def _inside(section: KeyPath) -> Iterator[KeyPath]:
    return (path for path in setting_names.SETTINGS if path[:-1] == section)


def _about(section: KeyPath) -> str:
    return " ".join((setting_names.KINDS[section][0].__doc__ or "").split())


def _short_variable(section: KeyPath) -> str:
    first = next(_inside(section))
    short = setting_names.ENVIRONMENT_PREFIX + first[-1].upper()
    return f" or shorter `{short}`" if setting_names.ENVIRONMENT.get(short) == first else ""


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
