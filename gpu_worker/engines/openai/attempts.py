"""How often one question is tried. Decides; asking and waiting happen in `engine` and `admission`."""

from __future__ import annotations

from dataclasses import dataclass

from gpu_worker.engines.openai.faults import Blame, Fault


@dataclass(slots=True)
class Attempts:
    """Of one question, those that failed. Times in seconds, of one clock that only goes forward.

    Attributes:
        most: So many are enough.
        busy_s: But not before so long, if the last was refused as one too many.
        failed: While the server answered others.
        lost: With the connection, or with what is behind the server.
        refusals: As one too many, whatever others met.
        tried_s: From the first to the last.
    """

    most: int
    busy_s: float
    failed: int = 0
    lost: int = 0
    refusals: int = 0
    tried_s: float = 0.0
    _since: float | None = None

    def add(self, fault: Fault, now: float) -> None:
        self._since = now if self._since is None else self._since
        self.tried_s = now - self._since
        self.lost += fault.is_lost
        self.refusals += fault.blame is Blame.TOO_MANY

    def are_enough(self, fault: Fault) -> bool:
        """Whether the question is given up, now that it failed once more while the server answered others."""
        self.failed += 1
        return self.failed >= self.most and self._is_long_enough(fault)

    def want_comparison(self, fault: Fault) -> bool:
        """Whether it is time to see whether the server refuses others as well.

        Others may take so long that no answer to them tells.
        """
        return fault.blame is Blame.TOO_MANY and self.refusals >= self.most and self._is_long_enough(fault)

    def _is_long_enough(self, fault: Fault) -> bool:
        return fault.blame is not Blame.TOO_MANY or self.tried_s >= self.busy_s
