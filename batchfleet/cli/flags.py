"""Flags that several commands share."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from batchfleet import logs
from wire.messages import MAX_PRIORITY

Commands = argparse._SubParsersAction  # noqa: SLF001 (argparse gives the type of its own return value no public name)
ENGINES = ("stub", "vllm", "openai")
RUN = "its name, as the summary and ANSWERS.run have it"
EXIT_CODES = (
    "exit codes: 0 every question answered; 1 some failed; 2 usage, configuration or input error; 3 not finished; 70 a "
    "bug of batchfleet; "
    "130 interrupted"
)


@dataclass(frozen=True, slots=True)
class Shared:
    """Parents of the commands' parsers: `common` for all, `queue` for those that reach a Redis of the user's."""

    common: argparse.ArgumentParser
    queue: argparse.ArgumentParser

    @property
    def both(self) -> list[argparse.ArgumentParser]:
        return [self.common, self.queue]


def shared_flags() -> Shared:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", metavar="FILE", help="YAML configuration")
    common.add_argument(
        "--log-level", choices=["debug", "info", "warning", "error"], help="default: info for services, else warning"
    )
    common.add_argument(
        "--log-format",
        choices=logs.FORMATS,
        default="text",
        help="plain lines, or one JSON object a line (default: text)",
    )
    queue = argparse.ArgumentParser(add_help=False)
    words = (
        "redis://, rediss:// or unix:// URL, or set BATCHFLEET_REDIS_URL; "
        "by default that of this user's `batchfleet up` on this host"
    )
    queue.add_argument("--redis", metavar="URL", help=words)
    queue.set_defaults(finds_fleet=True)
    return Shared(common, queue)


def add_json(parser: argparse.ArgumentParser, words: str = "one JSON object on stdout") -> None:
    parser.add_argument("--json", action="store_true", help=words)


def add_engine(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=ENGINES, help="what answers (default: as the configuration says)")


def add_served_as(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--served-as", metavar="NAME", help="ask all questions of this model, whatever model they name")


def add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        metavar="URL",
        help="use an OpenAI-compatible server (--model if it has several); its key belongs in BATCHFLEET_API_KEY",
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Flags that stand for settings of `model.generator_settings`, and `--set` for all of them; `load` reads them."""
    words = "model for questions that name none; with vLLM, the model to load: a Hugging Face id or a folder"
    parser.add_argument("--model", metavar="NAME", help=words)
    parser.add_argument("--temperature", metavar="T", help="temperature, for questions that have none")
    parser.add_argument(
        "--max-tokens", metavar="N", help="maximum tokens of an answer, for questions that have no maximum"
    )
    words = "any setting of docs/configuration.md, such as top_p=0.9; repeatable"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="settings", help=words)


def priority(text: str) -> int:
    """A priority, 0 to 9."""
    value = not_negative(text)
    if value > MAX_PRIORITY:
        raise argparse.ArgumentTypeError(f"{text} is above {MAX_PRIORITY}, the highest priority")
    return value


def positive(text: str) -> int:
    """A whole number, 1 or more."""
    return _whole_number(text, 1)


def not_negative(text: str) -> int:
    """A whole number, 0 or more."""
    return _whole_number(text, 0)


def _whole_number(text: str, least: int) -> int:
    if not (text.isascii() and text.isdigit() and int(text) >= least):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {least} or more")
    return int(text)
