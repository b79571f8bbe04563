"""What is started for a fleet on this machine, and where its files lie."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from batchfleet.settings.mask import child_environment, to_file_text
from batchfleet.settings.schema import Settings
from batchfleet.supervisor.state_folder import LONGEST_SOCKET_PATH, SOCKET
from wire.errors import UsageError

STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What is to be started.

    Attributes:
        engine: `stub`, `vllm` or `openai`; None for what each worker finds in the configuration.
        workers, batchers: How many of each.
        redis_url: None for a private Redis.
        config: Text of the configuration that all processes get, without secrets.
        environ: Environment of all processes; secrets travel here and nowhere else.
        log_level, log_format: For the processes' logs.
        folder: Where the queue and the logs stay; None for a folder that is gone with the fleet.
        grace_s: How long workers may take to end.
    """

    engine: str | None
    workers: int
    batchers: int
    redis_url: str | None
    config: str
    environ: Mapping[str, str]
    log_level: str = "info"
    log_format: str = "text"
    folder: Path | None = None
    grace_s: float = STOP_S

    @classmethod
    def of(cls, settings: Settings, environ: Mapping[str, str], *, engine: str | None, workers: int) -> LocalPlan:
        """One batcher and these workers, with everything else as the settings and our own environment say."""
        return cls(engine, workers, 1, settings.redis.url, to_file_text(settings), child_environment(settings, environ))


def scratch_folder(*, for_socket: bool) -> Path:
    """Only for this user: mkdtemp sees to it. A batch system's TMPDIR may be too long a path for a socket."""
    try:
        folder = Path(tempfile.gettempdir())
        if for_socket and len(bytes(folder / "batchfleet-12345678" / SOCKET)) > LONGEST_SOCKET_PATH:
            folder = Path("/tmp")  # noqa: S108 (for a folder of its own in it)
        return Path(tempfile.mkdtemp(prefix="batchfleet-", dir=folder))
    except OSError as error:
        raise UsageError(
            f"no folder for temporary files ({error.strerror or error}); set TMPDIR to one that can be written to and "
            "whose path is short"
        ) from None
