"""From the flags of `batchfleet gateway` to its options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from batchfleet.gateway.api_keys import KeyRing, read_keys
from batchfleet.gateway.limits import MIB, GatewayLimits
from batchfleet.gateway.options import GatewayOptions, TlsFiles
from batchfleet.settings.schema import Settings
from wire.errors import UsageError

KEYS_VARIABLE = "BATCHFLEET_GATEWAY_KEYS"
TLS_PASSWORD_VARIABLE = "BATCHFLEET_GATEWAY_TLS_PASSWORD"  # noqa: S105 (a name)
MOST_PORT = 65535


def options_from(arguments: argparse.Namespace, settings: Settings, environ: Mapping[str, str]) -> GatewayOptions:
    """What the flags ask for.

    Raises:
        UsageError: One of them cannot be.
    """
    if arguments.data is None:
        raise UsageError("where should files be kept? Give --data FOLDER")
    host, port = _host_and_port(arguments.listen)
    return GatewayOptions(
        host=host,
        port=port,
        data_folder=Path(arguments.data),
        settings=settings,
        keys=_keys(arguments.keys, environ),
        limits=_limits(arguments),
        tls=_tls(arguments, environ),
        online_priority=arguments.online_priority,
        batch_priority=arguments.batch_priority,
        online_share=arguments.online_share / 100,
    )


def _host_and_port(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not (port.isascii() and port.isdigit() and int(port) <= MOST_PORT):
        raise UsageError(f"--listen {text}: write it as HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _keys(file: str | None, environ: Mapping[str, str]) -> KeyRing:
    ring = read_keys(environ.get(KEYS_VARIABLE, "").replace(",", "\n").splitlines(), KEYS_VARIABLE)
    if file is None:
        return ring
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--keys {file} cannot be read: {error}") from None
    found = read_keys(text.splitlines(), f"--keys {file}")
    if not found.entries:
        # Never open to all because somebody emptied a file.
        raise UsageError(f"--keys {file} has no key in it; `batchfleet gateway --new-key NAME` makes one")
    return KeyRing(ring.entries + found.entries)


def _limits(arguments: argparse.Namespace) -> GatewayLimits:
    return GatewayLimits(
        max_body_bytes=arguments.max_body_mib * MIB,
        max_bodies_bytes=arguments.max_bodies_mib * MIB,
        max_file_bytes=arguments.max_file_mib * MIB,
        max_files=arguments.max_files,
        max_open_requests=arguments.max_open_requests,
        max_connections=arguments.max_connections,
        idle_timeout_s=arguments.idle_timeout_s,
        body_timeout_s=arguments.body_timeout_s,
        answer_timeout_s=arguments.answer_timeout_s,
        stop_timeout_s=arguments.stop_timeout_s,
    )


def _tls(arguments: argparse.Namespace, environ: Mapping[str, str]) -> TlsFiles | None:
    if arguments.tls_cert is None and arguments.tls_key is None:
        return None
    if arguments.tls_cert is None or arguments.tls_key is None:
        raise UsageError("--tls-cert and --tls-key go together")
    return TlsFiles(
        certificate=Path(arguments.tls_cert),
        key=Path(arguments.tls_key),
        password=environ.get(TLS_PASSWORD_VARIABLE) or None,
    )
