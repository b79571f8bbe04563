"""Which server answers, and how patient to be with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from wire.messages import JsonObject


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """Which server, and how patient to be with it. Times in seconds.

    Attributes:
        server: Host, `host:port`, or URL with or without the API's path.
        port: Where `server` names none; 8000 for a bare host.
        api_key: Appears nowhere but in the requests' header.
        model: As the server names it.
        sampling_defaults: Used where a question brings none.
        max_in_flight: Most requests at once, however many the server would take; the worker's default capacity is half
            as many more.
        request_timeout_s: Longest that one attempt may take.
        tries: Most attempts of a question that fails while the server answers others.
        busy_s: For how long a question that is refused as one too many, while others are answered, is tried at least.
        first_pause_s, longest_pause_s: Between attempts, and between probes of a server that is ill: doubled each time,
            from the one to the other.
        startup_timeout_s: How long a server that is not up yet is waited for.
        pulse_s: How often a server is looked at, beside the requests.
        stall_s: After so long without an answer to any question, a server that has some is probed.
        reply_stall_s: Longest silence in the middle of a reply.
        probe_timeout_s: Longest that a probe may take.
        hold_s: For a wait that lasts longer than this, its state `lets_go` of the questions.
    """

    server: str
    model: str
    port: int | None = None
    api_key: str | None = field(default=None, repr=False)
    sampling_defaults: JsonObject = field(default_factory=dict)
    max_in_flight: int = 64
    request_timeout_s: float = 3600.0
    tries: int = 6
    busy_s: float = 300.0
    first_pause_s: float = 0.5
    longest_pause_s: float = 30.0
    startup_timeout_s: float = 600.0
    pulse_s: float = 1.0
    stall_s: float = 120.0
    reply_stall_s: float = 60.0
    probe_timeout_s: float = 30.0
    hold_s: float = 30.0
