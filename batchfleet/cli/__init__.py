"""The `batchfleet` command: a module for each group of commands. Each has `add_commands(commands, shared)`."""
