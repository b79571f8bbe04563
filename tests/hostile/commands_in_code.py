"""Which Redis commands the code of a fleet can send, read from the code itself.

What no test happens to run is found as well.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from tests.processes import ROOT

PACKAGES = ("wire", "producer", "batcher", "gpu_worker", "batchfleet")
OF_ITS_OWN = ("embedded_server.py", "queue_server.py")
"""What these send goes to a server that they start themselves."""
CLIENTS = re.compile(r"(client|pipe|Pipeline|connected|redis)\Z")
METHODS = {
    "delete": "del",
    "register_script": "evalsha",
    "script_load": "script|load",
    "xinfo_stream": "xinfo|stream",
    "info": "info",
}
"""Of redis-py, where they are not named after their command."""


def commands_in_code(known: Collection[str]) -> set[str]:
    """All of them, in lower case; `parent|child` where a command has several.

    Args:
        known: All commands that there are.
    """
    found = {"multi", "exec", "script|load"} if _runs_transactions() else set()
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            if file.name not in OF_ITS_OWN:
                found |= set(_in_python(file, known))
        for file in sorted((ROOT / package).rglob("*.lua")):
            found |= set(_in_lua(file.read_text(), known))
    return found


def _runs_transactions() -> bool:
    return any(
        "transaction=True" in file.read_text() for package in PACKAGES for file in (ROOT / package).rglob("*.py")
    )


def _in_python(file: Path, known: Collection[str]) -> Iterator[str]:
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "redis.call(" in node.value:
            yield from _in_lua(node.value, known)
        # Also what is not called here but handed on, such as `Pipeline.ttl`.
        if isinstance(node, ast.Attribute) and CLIENTS.search(ast.unparse(node.value)):
            command = METHODS.get(node.attr, node.attr)
            if command in known or "|" in command:
                yield command


def _in_lua(text: str, known: Collection[str]) -> Iterator[str]:
    code = re.sub(r"--[^\n]*", "", text)
    if re.search(r"'MEMORY', 'USAGE'", code):
        yield "memory|usage"
    # A command may be handed on as an argument.
    yield from (
        word.lower() for word in re.findall(r"'([A-Z]{3,})'", code) if word.lower() in known and word != "MEMORY"
    )
