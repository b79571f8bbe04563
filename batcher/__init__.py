"""Which questions ride together, and the hand-over."""
