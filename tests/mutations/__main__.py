"""`python -m tests.mutations`: break one line at a time in a copy, and see that the test that must notice does."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.mutations.catalogue import MUTATIONS, as_table
from tests.mutations.mutation import Mutation

ROOT = Path(__file__).parent.parent.parent
TEST_S = 60
"""A mutation may make a test wait for what never comes; that is noticing, too."""
FAILED = 1
"""Exit code of pytest if tests failed. Any other says that they did not run."""


def main() -> int:
    """Returns 0 if every mutation was noticed, 1 if not, 2 for wrong arguments."""
    parser = argparse.ArgumentParser(prog="scripts/mutate", description=__doc__)
    parser.add_argument("words", nargs="*", help="only those whose description, file or test contains one of these")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="how many at the same time (default: 1)")
    parser.add_argument("--table", action="store_true", help="only print the list, in Markdown")
    arguments = parser.parse_args()
    if arguments.table:
        print(as_table())
        return 0
    chosen = [
        one
        for one in MUTATIONS
        if not arguments.words or any(word in f"{one.what} {one.file} {one.test}" for word in arguments.words)
    ]
    if not chosen:
        print(f"no mutation has any of {', '.join(arguments.words)}", file=sys.stderr)
        return 2
    complaints = [*_fail_unbroken(chosen)]
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for mutation, complaint in zip(chosen, pool.map(_survives, chosen), strict=True):
            print(f"{'SURVIVED' if complaint else 'noticed'}: {mutation.what}", flush=True)
            complaints += [complaint] if complaint else []
    print(*complaints, sep="\n", file=sys.stderr)
    print(f"{len(chosen)} mutations, {len(complaints)} complaints")
    return 1 if complaints else 0


def _fail_unbroken(chosen: Sequence[Mutation]) -> list[str]:
    """A test that fails anyway notices nothing."""
    with tempfile.TemporaryDirectory(prefix="bf-mutate-") as folder:
        _copy(Path(folder))
        done = _run(Path(folder), sorted({mutation.test for mutation in chosen}))
    return [f"without any mutation the tests fail:\n{done.stdout[-3000:]}"] if done.returncode else []


def _survives(mutation: Mutation) -> str | None:
    """What is wrong if the test does not notice; None if it does."""
    with tempfile.TemporaryDirectory(prefix="bf-mutate-") as folder:
        _copy(Path(folder))
        path = Path(folder) / mutation.file
        text = path.read_text(encoding="utf-8")
        if text.count(mutation.before) != 1:
            return (
                f"{mutation.what}: {mutation.file} has its line {text.count(mutation.before)} times; it must be there "
                "once"
            )
        path.write_text(text.replace(mutation.before, mutation.after), encoding="utf-8")
        done = _run(Path(folder), [mutation.test])
    if done.returncode == FAILED:
        return None
    ended = "passed" if done.returncode == 0 else f"did not run (pytest ended with code {done.returncode})"
    return f"{mutation.what}: {mutation.test} {ended}\n{done.stdout[-1500:]}"


def _copy(folder: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)


def _run(folder: Path, tests: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # Without the plugins that measure and distribute; the copy comes first on the path, before an editable install of
    # the original.
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--timeout", str(TEST_S), *tests]
    environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, check=False)  # noqa: S603 (our own command line)


if __name__ == "__main__":
    sys.exit(main())
