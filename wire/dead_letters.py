"""What every program that puts something among the dead letters has to know."""

DEAD_LETTER_TTL_S = 30 * 86_400
"""How long dead letters, and what was moved aside, are kept after the last one."""
