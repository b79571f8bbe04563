"""`cache`."""

from __future__ import annotations

import argparse
import json
import re
import time
from dataclasses import asdict
from pathlib import Path

from batchfleet.cli.flags import Commands, Shared, add_json, positive
from batchfleet.humanize import count, duration
from batchfleet.settings.schema import Settings
from producer.reuse.cache import FILE, AnswerCache, CacheStats
from wire.errors import UsageError

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_DAY_S = 86_400


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    cache = commands.add_parser("cache", parents=[shared.common], help="inspect or shrink a folder of `run --cache`")
    cache.add_argument("action", choices=("stats", "prune"), help="show figures; drop answers")
    cache.add_argument("folder", metavar="FOLDER", help="the folder of --cache")
    cache.add_argument(
        "--max-bytes", type=_size, metavar="N", help="drop the least recently used, down to a size such as 500M or 2G"
    )
    cache.add_argument("--unused-days", type=positive, metavar="N", help="drop what was not used for N days")
    cache.add_argument("--model", metavar="NAME", help="drop all answers of this model")
    cache.add_argument("--all", action="store_true", help="drop everything")
    add_json(cache)
    cache.set_defaults(command=_cache)


def _cache(arguments: argparse.Namespace, settings: Settings) -> int:
    folder = Path(arguments.folder)
    if not (folder / FILE).is_file():
        raise UsageError(f"{folder}: there is no cache in it; name a folder that was given to `batchfleet run --cache`")
    asked = [
        name for name in ("max_bytes", "unused_days", "model", "all") if getattr(arguments, name) not in (None, False)
    ]
    if (arguments.action == "prune") != bool(asked):
        raise UsageError(
            "cache prune needs --max-bytes, --unused-days, --model or --all; cache stats takes none of them"
        )
    dropped = 0
    with AnswerCache(folder, settings.limits.max_cache_bytes) as cache:
        if asked:
            dropped = cache.prune(
                0 if arguments.all else arguments.max_bytes,
                unused_for_s=arguments.unused_days * _DAY_S if arguments.unused_days else None,
                model=arguments.model,
            )
        stats = cache.stats()
    print(json.dumps({"dropped": dropped, **asdict(stats)}) if arguments.json else _text(stats, dropped, bool(asked)))
    return 0


def _text(stats: CacheStats, dropped: int, has_pruned: bool) -> str:  # noqa: FBT001 (a value)
    lines = [f"dropped   {count(dropped)} answers"] if has_pruned else []
    lines.append(
        f"answers   {count(stats.answers)}, {count(stats.bytes)} bytes; the file has {count(stats.file_bytes)}"
    )
    if stats.answers:
        now = time.time()
        ages = [duration(max(0.0, now - used)) for used in (stats.newest_use, stats.oldest_use)]
        lines.append(f"used      {ages[0]} ago, the least recent one {ages[1]} ago")
        lines.append("models    " + ", ".join(f"{name} {count(number)}" for name, number in stats.models.items()))
    return "\n".join(lines)


def _size(text: str) -> int:
    match = re.fullmatch(r"(\d{1,15})([KMGT]?)i?B?", text, re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 500M or 2G")
    return int(match[1]) * _UNITS[match[2].upper()]
