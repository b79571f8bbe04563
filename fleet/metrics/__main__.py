"""`python -m fleet.metrics` prints docs/metrics.md: every metric, from the table that defines them."""

from fleet.metrics.reference import text

if __name__ == "__main__":
    print(text(), end="")
