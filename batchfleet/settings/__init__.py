"""The configuration: its keys (`schema`), and how file, environment and flags become one frozen value (`load`)."""
