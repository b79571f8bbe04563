"""What a fleet is doing: read from Redis, put into words and tables."""
