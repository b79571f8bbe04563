"""The engines that a worker can be bound to."""
