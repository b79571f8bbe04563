"""The settings of distllm's evaluation scripts that have no meaning in a fleet, and what to do in their place.

Their files load here as they are: what means something takes effect (`base_url`, `questions_file`, `output_directory`,
...), what means nothing is named in one warning. A key that neither they nor we know is an error, as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable

KeyPath = tuple[str, ...]

_RETRIEVAL = "nothing is retrieved: put the context into the questions, with --template"
_GRADING = "answers are scored apart, by `batchfleet score`"
_CHECKPOINTS = "every answer is on disk as it comes, and the same command resumes where it stopped"
_ELSEWHERE = "what was answered elsewhere is asked again"
_SERVING = "an engine in this process has no port; boot_local and server say what answers"
_DISPLAY = "--quiet and --log-level say what is shown"

_MEANINGLESS: dict[KeyPath, tuple[str, tuple[str, ...]]] = {
    ("rag",): (
        _RETRIEVAL,
        (
            "enabled",
            "rag_config_file",
            "use_context_field",
            "retrieval_top_k",
            "retrieval_score_threshold",
            "chunk_logging_enabled",
        ),
    ),
    ("rag", "retriever_config"): (_RETRIEVAL, ("batch_size",)),
    ("rag", "retriever_config", "faiss_config"): (
        _RETRIEVAL,
        (
            "name",
            "dataset_dir",
            "faiss_index_path",
            "dataset_chunk_paths",
            "precision",
            "search_algorithm",
            "rescore_multiplier",
            "num_quantization_workers",
        ),
    ),
    ("rag", "retriever_config", "encoder_config"): (
        _RETRIEVAL,
        (
            "name",
            "pretrained_model_name_or_path",
            "tokenizer_name",
            "half_precision",
            "eval_mode",
            "compile_model",
            "quantization",
        ),
    ),
    ("rag", "retriever_config", "pooler_config"): (_RETRIEVAL, ("name",)),
    ("model",): (_GRADING, ("grader_shortname", "model_config_file")),
    ("model", "generator"): (_SERVING, ("generator_type",)),
    ("model", "generator_settings"): (_SERVING, ("auto_port", "local_host")),
    ("output",): (_GRADING, ("save_incorrect",)),
}
_OF_PROCESSING = {
    _GRADING: ("question_format",),
    _CHECKPOINTS: (
        "enable_checkpointing",
        "checkpoint_interval",
        "checkpoint_directory",
        "auto_resume",
        "save_incremental",
    ),
    _ELSEWHERE: ("resume_from_checkpoint",),
    _DISPLAY: ("verbose", "progress_bar"),
    "all questions are asked": ("random_seed",),
}

ADVICE: dict[KeyPath, str] = {
    (*section, key): advice for section, (advice, keys) in _MEANINGLESS.items() for key in keys
} | {("processing", key): advice for advice, keys in _OF_PROCESSING.items() for key in keys}
"""Setting without a meaning here -> what to do in its place."""

SECTIONS = frozenset(path[:end] for path in ADVICE for end in range(1, len(path)))
"""What holds such settings."""

ALIASES: dict[KeyPath, KeyPath] = {
    ("model", "generator_settings", "base_url"): ("model", "generator_settings", "server")
}
"""Settings that have another name here."""

REFUSED: dict[KeyPath, str] = {
    (
        "processing",
        "random_selection",
    ): "leave this out, and give --sample N on the command line",
}
"""Settings whose being ignored would cost dearly, unless they are null."""

KNOWN = ADVICE.keys() | SECTIONS | REFUSED.keys()
"""All of them."""


def warning(ignored: Iterable[KeyPath]) -> str:
    """One line about all of them: which, and what to do."""
    by_advice: dict[str, list[str]] = {}
    for path in ignored:
        names = by_advice.setdefault(ADVICE[path], [])
        # Of retrieval there is much, and to say about it one thing.
        name = "rag" if path[0] == "rag" else ".".join(path)
        if name not in names:
            names.append(name)
    told = "; ".join(f"{', '.join(names)} ({advice})" for advice, names in by_advice.items())
    return f"these have no meaning here and are ignored: {told}"


def names(section: KeyPath) -> list[str]:
    """The keys of distllm's that a section may have."""
    depth = len(section)
    return sorted({path[depth] for path in KNOWN if path[:depth] == section and len(path) > depth})
