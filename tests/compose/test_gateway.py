"""OpenAI's API as a service of Compose: with keys, beside a fleet."""

from __future__ import annotations

import json

from tests.compose.composed import Composed

ASK = """
import json, sys, urllib.request
def ask(path, body=None):
    headers = {"Authorization": "Bearer " + sys.argv[1], "Content-Type": "application/json"}
    request = urllib.request.Request("http://127.0.0.1:8080/v1/" + path, body and json.dumps(body).encode(), headers)
    return json.load(urllib.request.urlopen(request, timeout=60))
model = ask("models")["data"][0]["id"]
print(json.dumps(ask("chat/completions", {"model": model, "messages": [{"role": "user", "content": "Why?"}]})))
"""


def test_a_gateway_in_a_container_answers_who_has_a_key(fleet: Composed) -> None:
    """It becomes healthy, and hands a question to the workers and their answer back."""
    key, line = fleet.ask("gateway", "--new-key", "lab").stdout.split("\n")[:2]
    fleet.environ["GATEWAY_KEYS"] = line
    fleet.up(workers=1)

    fleet.compose("--profile", "gateway", "up", "--detach", "--wait", "--no-build", "--pull", "never", "gateway")

    answer = json.loads(fleet.inside("gateway", "python3", "-c", ASK, key))
    assert answer["choices"][0]["message"]["content"]
