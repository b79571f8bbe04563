"""What a worker tells others of itself: counts, rates, boot, failures, health."""
