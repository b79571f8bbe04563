"""A fleet as a Python program sees it. What `batchfleet` exports is defined here."""
