"""`python -m fleet.commands` prints docs/commands.md: every command and flag, from the parsers that read them."""

from fleet.commands.reference import text

if __name__ == "__main__":
    print(text(), end="")
