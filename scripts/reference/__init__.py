"""Pages of docs/ that are made from the code: `python -m scripts.reference.NAME >docs/NAME.md`."""
