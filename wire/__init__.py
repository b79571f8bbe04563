"""The contract every program of the fleet shares: messages, their encoding, key names, scripts and errors."""
