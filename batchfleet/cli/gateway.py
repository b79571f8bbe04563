"""`gateway`: OpenAI's API in front of the queue."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

from batchfleet.cli.flags import Commands, Shared, add_settings, not_negative, positive, priority
from batchfleet.settings.schema import Settings
from wire.errors import UsageError

LISTEN = "127.0.0.1:8080"
KEYS_VARIABLE = "BATCHFLEET_GATEWAY_KEYS"
TLS_PASSWORD_VARIABLE = "BATCHFLEET_GATEWAY_TLS_PASSWORD"  # noqa: S105 (a name)
LIMITS: tuple[tuple[str, Callable[[str], int], int, str], ...] = (
    ("max_body_mib", positive, 32, "largest request body but uploads, in MiB"),
    ("max_bodies_mib", positive, 256, "such bodies together, in MiB"),
    ("max_file_mib", positive, 16384, "largest file, in MiB"),
    ("max_files", positive, 10_000, "files per key"),
    ("max_open_requests", positive, 2_000, "requests at once; more get a 429"),
    ("max_connections", positive, 10_000, "connections at once; beyond that, the longest idle ones are closed"),
    ("idle_timeout_s", positive, 30, "seconds for the head of a request to arrive"),
    ("body_timeout_s", positive, 30, "seconds for a body to arrive or a response to be read, plus 1 s per KiB"),
    ("answer_timeout_s", positive, 600, "seconds until an online question is withdrawn"),
    ("stop_timeout_s", not_negative, 30, "seconds for open requests to finish when stopped"),
)
"""Flag, its type, its default and what it bounds."""


def add_commands(commands: Commands[argparse.ArgumentParser], shared: Shared) -> None:
    words = "serve OpenAI's API in front of the queue, and a page"
    gateway = commands.add_parser("gateway", parents=shared.both, help=words)
    gateway.add_argument("--listen", default=LISTEN, metavar="HOST:PORT", help=f"address (default: {LISTEN})")
    gateway.add_argument("--data", metavar="FOLDER", help="folder of files and batches")
    words = f"keys, NAME sha256:HEX, one a line; or set {KEYS_VARIABLE}. Optional on loopback"
    gateway.add_argument("--keys", metavar="FILE", help=words)
    gateway.add_argument("--new-key", metavar="NAME", help="print a new key and its line for that file, and exit")
    gateway.add_argument("--tls-cert", metavar="FILE", help="serve HTTPS with this certificate chain (PEM)")
    words = f"its private key (PEM); a password belongs in {TLS_PASSWORD_VARIABLE}"
    gateway.add_argument("--tls-key", metavar="FILE", help=words)
    words = "priority of online questions, 0 to 9 (default: 7)"
    gateway.add_argument("--online-priority", type=priority, default=7, metavar="P", help=words)
    words = "priority of batches, 0 to 9 (default: 0)"
    gateway.add_argument("--batch-priority", type=priority, default=0, metavar="P", help=words)
    words = "percent of a model's capacity for online questions before batches; more take turns (default: 75)"
    gateway.add_argument("--online-share", type=_percent, default=75, metavar="PERCENT", help=words)
    for name, kind, default, words in LIMITS:
        flag = f"--{name.replace('_', '-')}"
        gateway.add_argument(flag, type=kind, default=default, metavar="N", help=f"{words} (default: {default})")
    add_settings(gateway)
    gateway.set_defaults(command=_gateway, usual_log_level="info")


def _percent(text: str) -> int:
    value = positive(text)
    if value > 100:  # noqa: PLR2004 (percent)
        raise argparse.ArgumentTypeError(f"{text} percent is more than there is")
    return value


def _gateway(arguments: argparse.Namespace, settings: Settings) -> int:
    # Only here: an extra, which takes a while to import.
    try:
        from batchfleet.gateway.api_keys import new_key  # noqa: PLC0415
        from batchfleet.gateway.command_line import options_from  # noqa: PLC0415
        from batchfleet.gateway.server import serve_gateway  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{error.name} is not installed, which the gateway needs: pip install 'batchfleet[gateway]'"
        ) from None
    if arguments.new_key is not None:
        print("\n".join(new_key(arguments.new_key)))
        return 0
    return serve_gateway(options_from(arguments, settings, os.environ))
