"""What a gateway is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from batchfleet.gateway.api_keys import KeyRing
from batchfleet.gateway.limits import GatewayLimits
from batchfleet.settings.schema import Settings
from wire.messages import MAX_PRIORITY


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files; the password of the key, if it has one, stays out of `repr`."""

    certificate: Path
    key: Path
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Everything that a gateway needs to know.

    Attributes:
        host, port: Where it listens; port 0 for any that is free.
        data_folder: Its own: files, and what it knows of them and of batches. Several gateways may share one.
        settings: Of the fleet that it speaks for.
        tls: None for HTTP.
        online_priority: Of questions that somebody waits for, 0 to 9.
        batch_priority: Of batches, and of online questions beyond `online_share`.
        online_share: Of the capacity of a model's workers, how much online questions may claim before others.
    """

    host: str
    port: int
    data_folder: Path
    settings: Settings
    keys: KeyRing = field(default_factory=KeyRing)
    limits: GatewayLimits = field(default_factory=GatewayLimits)
    tls: TlsFiles | None = None
    online_priority: int = MAX_PRIORITY - 2
    batch_priority: int = 0
    online_share: float = 0.75
