"""How much clients may ask of one gateway; each has a flag of its name."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayLimits:
    """Of everything that clients could make grow. Sizes in bytes, times in seconds.

    Attributes:
        max_body_bytes: Of one request that is not an upload.
        max_bodies_bytes: Of the bodies of all open requests that are no uploads, together.
        max_file_bytes: Of one file, or of all parts of one upload.
        max_files: Of one key.
        max_open_requests: Beyond it, requests are told to come again.
        max_connections: Beyond it, the one that has been idle longest is closed for a new one.
        idle_timeout_s: For a connection to send the head of a request, whole, from the first byte of silence.
        body_timeout_s: For a body to come, and for a response to be taken, beside what it takes at `LEAST_BYTES_S`.
        answer_timeout_s: For an online answer to be there.
        stop_timeout_s: For open requests to end after SIGTERM.
    """

    max_body_bytes: int = 32 * MIB
    max_bodies_bytes: int = 256 * MIB
    max_file_bytes: int = 16 * 1024 * MIB
    max_files: int = 10_000
    max_open_requests: int = 2_000
    max_connections: int = 10_000
    idle_timeout_s: float = 30.0
    body_timeout_s: float = 30.0
    answer_timeout_s: float = 600.0
    stop_timeout_s: float = 30.0
