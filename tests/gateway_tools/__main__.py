"""Tools of evaluation against the gateway, with nothing changed but `base_url`, and against the model's own server.

    python -m tests.gateway_tools --python TOOLS/bin/python              a fleet of a stub
    python -m tests.gateway_tools --python TOOLS/bin/python --vllm VLLM/bin/python --model FOLDER
                                                                          vLLM in a worker, then vLLM's own server

TOOLS is a virtual environment with `lm-eval[api]`, `transformers`, `litellm` and `inspect-ai`, or with those of them
that `--tools` names; FOLDER is made by
`python -m tests.integration.tiny_model FOLDER`. Not part of the tests: it takes minutes, and packages of others. Ends
with 1 if a tool fails, or answers differ from those of the server asked directly.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from batchfleet.supervisor.embedded_server import EmbeddedServer
from batchfleet.supervisor.processes import spawn, stop_all
from tests.integration.tiny_model import ENGINE_ARGUMENTS
from tests.processes import ROOT, Processes, wait_until

QUESTIONS = 24
TOOLS = ("lm-eval", "litellm", "inspect-ai")
CHOICE = {
    "task": "choice",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}\nAnswer:",
    "doc_to_choice": [" A", " B", " C", " D"],
    "doc_to_target": "{{['A', 'B', 'C', 'D'].index(answer)}}",
    "metric_list": [{"metric": "acc"}],
}
WORDS = {
    "task": "words",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{answer}}",
    "generation_kwargs": {"until": ["\n\n"], "max_gen_toks": 12, "temperature": 0},
    "metric_list": [{"metric": "exact_match"}],
}
LITELLM = """
import json, litellm, sys
url, model = sys.argv[1:]
said = [{"role": "user", "content": "Hi"}]
ask = dict(model=f"openai/{model}", api_base=url, api_key="none", messages=said, max_tokens=8, temperature=0)
whole = litellm.completion(**ask).choices[0].message.content
parts = [part.choices[0].delta.content or "" for part in litellm.completion(**ask, stream=True)]
several = [[{"role": "user", "content": f"Hi {n}"}] for n in range(50)]
many = [one.choices[0].message.content for one in litellm.batch_completion(**{**ask, "messages": several})]
print(json.dumps({"whole": whole, "streamed": "".join(parts), "many": many}))
"""

INSPECT = """
import json, sys
from pathlib import Path
from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import GenerateConfig
from inspect_ai.scorer import match
documents, url, model, logs = sys.argv[1:]
read = json.loads(Path(documents).read_text())
samples = [Sample(input=one["question"], target=one["answer"], id=number) for number, one in enumerate(read)]
config = GenerateConfig(temperature=0, max_tokens=12, max_connections=8)
(log,) = eval(
    Task(dataset=samples, scorer=match(location="any"), config=config), model=f"openai-api/fleet/{model}",
    model_args={"api_key": "none"}, model_base_url=url, log_dir=logs, display="none",
)
assert log.status == "success", log.error
scores = {name: metric.value for name, metric in log.results.scores[0].metrics.items()}
answers = [one.output.completion for one in sorted(log.samples, key=lambda one: one.id)]
print(json.dumps({"scores": scores, "answers": answers}))
"""


def write_tasks(folder: Path) -> None:
    """Tasks of lm-eval whose questions lie in a file, so that no hub is needed."""
    lines = (ROOT / "examples" / "science.jsonl").read_text(encoding="utf-8").splitlines()
    documents = [json.loads(line) for line in lines]
    kept = [one for one in documents if len(one["question"]) < 400][:QUESTIONS]
    (folder / "documents.json").write_text(
        json.dumps([{"question": d["question"], "answer": d["answer"]} for d in kept])
    )
    where = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "documents.json")}}}
    for task in (CHOICE, WORDS):
        # JSON is YAML.
        (folder / f"{task['task']}.yaml").write_text(json.dumps({**task, **where, "test_split": "test"}))


def evaluate(python: str, url: str, model: str, tokenizer: str | None, folder: Path, name: str) -> dict[str, Any]:
    """What lm-eval finds at an address: the scores of each task, and every answer."""
    found: dict[str, Any] = {}
    common = f"model={model},num_concurrent=8,max_length=512"
    of_text = f"{common},base_url={url}/completions,tokenized_requests=False," + (
        f"tokenizer={tokenizer},tokenizer_backend=huggingface" if tokenizer else "tokenizer_backend=None"
    )
    runs: list[tuple[str, str, list[str], list[str]]] = [
        ("local-completions", of_text, ["words", *(["choice"] if tokenizer else [])], [])
    ]
    chat = f"{common},base_url={url}/chat/completions,tokenizer_backend=None"
    runs.append(("local-chat-completions", chat, ["words"], ["--apply_chat_template"]))
    for kind, arguments, tasks, flags in runs:
        out = folder / f"{name}-{kind}"
        command = [python, "-m", "lm_eval", "--model", kind, "--model_args", arguments, "--tasks", ",".join(tasks)]
        command += ["--include_path", str(folder), "--output_path", str(out), "--log_samples", *flags]
        environ = {
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(folder / "cache"),
            "OPENAI_API_KEY": "none",
        }
        subprocess.run(command, check=True, env=environ, stdout=sys.stderr)  # noqa: S603 (a tool that the caller names)
        results = json.loads(next(out.rglob("results_*.json")).read_text())["results"]
        for task in tasks:
            samples = [json.loads(line) for line in next(out.rglob(f"samples_{task}_*.jsonl")).read_text().splitlines()]
            scores = {key: value for key, value in results[task].items() if key.split(",")[0] in {"acc", "exact_match"}}
            found[f"{kind} {task}"] = {"scores": scores, "answers": [one["resps"] for one in samples]}
    return found


def ask_litellm(python: str, url: str, model: str) -> dict[str, Any]:
    """What LiteLLM's SDK gets: whole, streamed, and many at once."""
    return _printed([python, "-c", LITELLM, url, model])


def ask_inspect(python: str, url: str, model: str, folder: Path, name: str) -> dict[str, Any]:
    """What inspect_ai finds: the scores, and every answer."""
    return _printed([python, "-c", INSPECT, str(folder / "documents.json"), url, model, str(folder / f"{name}-logs")])


def _printed(command: list[str]) -> dict[str, Any]:
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 (as above)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def ask_all(arguments: argparse.Namespace, url: str, model: str, folder: Path, name: str) -> dict[str, Any]:
    """What each tool finds at an address. `name`: of that address, for files."""
    found: dict[str, Any] = {}
    if "lm-eval" in arguments.tools:
        found |= evaluate(arguments.python, url, model, arguments.model, folder, name)
    if "litellm" in arguments.tools:
        found["litellm"] = ask_litellm(arguments.python, url, model)
    if "inspect-ai" in arguments.tools:
        found["inspect-ai"] = ask_inspect(arguments.python, url, model, folder, name)
    return found


@contextlib.contextmanager
def fleet(folder: Path, vllm: str | None, model: str) -> Iterator[str]:
    """A fleet of one worker with a gateway; gives the base URL."""
    server = EmbeddedServer(folder)
    server.start()
    try:
        with Processes(server.url, folder) as processes:
            processes.batcher()
            if vllm is None:
                processes.worker()
            else:
                environ = {**os.environ, "PYTHONPATH": str(ROOT), "BATCHFLEET_REDIS_URL": server.url}
                command = [vllm, "-m", "batchfleet", "worker", "--engine", "vllm", "--model", model]
                config = {"hf_model_id": model, "vllm_args": ENGINE_ARGUMENTS}
                (folder / "vllm.yaml").write_text(json.dumps({"generator_settings": config}))
                log = folder / "vllm-worker.log"
                processes.started["vllm-worker"] = spawn(
                    [*command, "--config", str(folder / "vllm.yaml")], environ, log
                )
            url = f"{processes.gateway()}/v1"
            wait_until(lambda: model in httpx2.get(f"{url}/models").text, "a worker reports", 600)
            yield url
    finally:
        if server.process is not None:
            stop_all([server.process], grace_s=5)


@contextlib.contextmanager
def direct(folder: Path, vllm: str, model: str) -> Iterator[str]:
    """The server that vLLM brings; gives the base URL."""
    command = [vllm, "-m", "vllm.entrypoints.openai.api_server", "--model", model, "--host", "127.0.0.1"]
    command += ["--port", "8765", "--enforce-eager", "--max-model-len", "512", "--dtype", "float32"]
    process = spawn([*command, "--generation-config", "vllm"], dict(os.environ), folder / "vllm-server.log")
    url = "http://127.0.0.1:8765/v1"
    try:

        def is_up() -> bool:
            with contextlib.suppress(httpx2.HTTPError):
                return httpx2.get(f"{url}/models").is_success
            return False

        wait_until(lambda: process.poll() is not None or is_up(), "vLLM's server is up", 600)
        yield url
    finally:
        stop_all([process], grace_s=30)


def main() -> int:
    """Exit code 0 if every tool ran, and found the same where it asked twice."""
    parser = argparse.ArgumentParser(prog="python -m tests.gateway_tools")
    parser.add_argument("--python", required=True, help="of an environment with the tools")
    parser.add_argument("--tools", nargs="+", choices=TOOLS, default=TOOLS)
    parser.add_argument("--vllm", help="Python of an environment with vLLM")
    parser.add_argument("--model", help="folder of its model; needed with --vllm")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bf-tools-") as name:
        folder = Path(name)
        write_tasks(folder)
        model = arguments.model or "stub"
        with fleet(folder, arguments.vllm, model) as url:
            ours = ask_all(arguments, url, model, folder, "gateway")
        theirs = None
        if arguments.vllm is not None:
            with direct(folder, arguments.vllm, model) as url:
                theirs = ask_all(arguments, url, model, folder, "direct")
    ok = True
    for what, found in ours.items():
        same = None if theirs is None else found == theirs[what]
        ok = ok and same is not False
        print(json.dumps({"what": what, "scores": found.get("scores"), "same as direct": same}))
        if same is False and theirs is not None:
            print(json.dumps({"gateway": found, "direct": theirs[what]})[:3000])
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
