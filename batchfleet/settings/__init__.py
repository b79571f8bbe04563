"""The configuration: its keys (`schema`), and how file, environment and command line become one frozen value (`loading`)."""
