"""The commands of `batchfleet`, one file for each kind of thing a person wants. Each has `add_commands(commands, shared)`."""
