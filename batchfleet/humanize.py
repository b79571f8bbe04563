"""Numbers and secrets as people read them."""

from __future__ import annotations

MINUTE_S = 60
HOUR_S = 3600
DAY_S = 86_400
GIB = 2**30
SMALL = 10

MASK = "********"
"""In place of a secret."""


def count(number: float) -> str:
    """12 345 rather than 12345."""
    return f"{number:,.0f}".replace(",", " ")


def rate(per_s: float, what: str) -> str:
    """`22.4 questions/s`; `3.1 questions/min` where less than one comes in ten seconds.

    0.0/s would look as if nothing happened.
    """
    if 0 < per_s < 0.1:  # noqa: PLR2004 (the first decimal place)
        return f"{per_s * MINUTE_S:.1f} {what}/min"
    return f"{per_s:.1f} {what}/s" if per_s < SMALL else f"{count(per_s)} {what}/s"


def duration(seconds: float) -> str:
    """`45 s`, `3 min 20 s`, `2 h 05 min`, `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole < MINUTE_S:
        return f"{whole} s"
    if whole < HOUR_S:
        return f"{whole // MINUTE_S} min {whole % MINUTE_S:02} s"
    minutes = round(whole / MINUTE_S)
    if minutes < DAY_S // MINUTE_S:
        return f"{minutes // 60} h {minutes % 60:02} min"
    days, hours = divmod(round(whole / HOUR_S), 24)
    return f"{days} d {hours} h" if hours else plural(days, "day")


def about(seconds: float) -> str:
    """As `duration`, with no more digits than an estimate deserves."""
    for limit_s, step_s in (
        (20, 1),
        (2 * MINUTE_S, 5),
        (10 * MINUTE_S, 10),
        (2 * HOUR_S, MINUTE_S),
        (DAY_S, 5 * MINUTE_S),
    ):
        if seconds < limit_s:
            text = duration(max(1, round(seconds / step_s) * step_s))
            return text.removesuffix(" 00 s") if step_s >= MINUTE_S else text
    return duration(seconds)


def gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.1f} GiB"


def plural(number: int, noun: str, nouns: str = "") -> str:
    """`1 worker`, `2 workers`; `nouns` where an s does not do."""
    return f"{count(number)} {noun if number == 1 else nouns or noun + 's'}"
