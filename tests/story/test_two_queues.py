"""A fleet over two queues, as docs/operations.md has it for when one Redis is not enough."""

from __future__ import annotations

import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from batchfleet.supervisor.embedded_server import EmbeddedServer
from tests.processes import Processes, batchfleet, read_answers, write_questions
from tests.redis_servers import running


def test_a_file_is_answered_over_two_queues(redis_server: EmbeddedServer, tmp_path: Path) -> None:
    """Each half by a fleet of its own, under its own namespace; together each question has one line."""
    ids = write_questions(tmp_path / "questions.jsonl", 300)
    subprocess.run(["split", "-n", "r/2", "questions.jsonl", "part-"], cwd=tmp_path, check=True)  # noqa: S607 (coreutils)
    answers = {part: tmp_path / f"answers-{part}.jsonl" for part in ("aa", "ab")}

    # The path of a socket has to be short.
    with tempfile.TemporaryDirectory(prefix="bf-test-") as folder, running(Path(folder)) as other:
        urls = dict(zip(answers, (redis_server.url, other.url), strict=True))
        with Processes(urls["aa"], tmp_path) as fleets:
            for part, path in answers.items():
                here = {"REDIS_URL": urls[part], "REDIS_NAMESPACE": f"half-{part}"}
                fleets.batcher(f"batcher-{part}", **here)
                fleets.worker(f"worker-{part}", **here)
                fleets.submit(tmp_path / f"part-{part}", path, name=f"producer-{part}", **here)
            assert [fleets.finish(f"producer-{part}") for part in answers] == [0, 0]
        verified = [
            batchfleet("verify", "--redis", url, environ={"BATCHFLEET_REDIS_NAMESPACE": f"half-{part}"}).stdout
            for part, url in urls.items()
        ]

    assert Counter(line["id"] for path in answers.values() for line in read_answers(path)) == Counter(ids)
    assert all("150 accepted, 150 answered" in words for words in verified)
