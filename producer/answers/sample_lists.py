"""All samples of a question in one line, and back. Pure.

Such a line has `id`, `status`, `samples` and `metadata`. It is `answered` if one of the samples is.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

import orjson

from producer.questions.samples import sample_of

if TYPE_CHECKING:
    from producer.answers.reader import Answered


def lists_of_samples(lines: Iterator[Answered]) -> Iterator[bytes]:
    """A line for each question; its samples must be adjacent. What is no sample stays as it is."""
    for base, group in groupby(lines, lambda line: (sample_of(line.fields["id"]) or (line.fields["id"],))[0]):
        samples = [line.fields for line in group]
        if sample_of(samples[0]["id"]) is None:
            yield from (orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE) for fields in samples)
        else:
            yield orjson.dumps(_listed(base, samples), option=orjson.OPT_APPEND_NEWLINE)


def _listed(base: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
    line: dict[str, Any] = {"id": base, "status": "failed", "samples": []}
    for fields in samples:
        number = (sample_of(fields["id"]) or ("", 0))[1]
        rest = {name: value for name, value in fields.items() if name not in ("id", "metadata")}
        seed = (fields.get("params") or {}).get("seed")
        line["samples"].append({"sample": number, **({} if seed is None else {"seed": seed}), **rest})
    if any(fields["status"] == "answered" for fields in samples):
        line["status"] = "answered"
    else:
        line["error"] = samples[0].get("error")
    if "metadata" in samples[0]:
        line["metadata"] = samples[0]["metadata"]
    return line


def unlisted(line: bytes) -> Iterator[bytes]:
    """The lines that were made into this one; itself if it is no list."""
    try:
        found: Any = orjson.loads(line) if b'"samples"' in line else None
    except orjson.JSONDecodeError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("samples"), list):
        yield line
        return
    metadata = {"metadata": found["metadata"]} if "metadata" in found else {}
    for sample in found["samples"]:
        fields = dict(sample) if isinstance(sample, dict) else {}
        number = fields.pop("sample", None)
        fields.pop("seed", None)
        yield orjson.dumps({"id": f"{found.get('id')}#{number}", **fields, **metadata})
