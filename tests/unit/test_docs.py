"""What the documentation says is so: settings, links, commands, failure kinds, names of functions and tests."""

from __future__ import annotations

import argparse
import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from batchfleet.cli.main import command_parser
from batchfleet.settings.load import load_settings
from scripts.reference import commands as command_reference
from scripts.reference import records, settings
from wire.failures import KINDS

ROOT = Path(__file__).parents[2]
PACKAGES = ("wire", "producer", "batcher", "gpu_worker", "batchfleet", "benchmarks")
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def code_spans(page: Path) -> list[str]:
    """What stands between single backquotes."""
    return re.findall(r"(?<!`)`([^`\n]+)`(?!`)", page.read_text(encoding="utf-8"))


def code_lines(page: Path) -> list[str]:
    """Lines of indented code blocks, without the indentation; a backslash at the end joins lines, as in a shell."""
    text = re.sub(r"\\\n\s*", "", page.read_text(encoding="utf-8"))
    return [line[4:] for line in text.splitlines() if line.startswith("    ")]


def source_files(suffix: str) -> Iterator[Path]:
    """Files of all packages."""
    return (path for package in PACKAGES for path in sorted((ROOT / package).rglob(f"*{suffix}")))


def test_the_reference_of_settings_is_current() -> None:
    """It is what `python -m scripts.reference.settings >docs/configuration.md` writes."""
    assert (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8") == settings.text()


def test_the_reference_of_commands_is_current() -> None:
    """It is what `python -m scripts.reference.commands >docs/commands.md` writes."""
    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == command_reference.text()


def test_the_example_of_the_reference_loads(tmp_path: Path) -> None:
    """The block at its top is a valid configuration."""
    lines = [line for line in code_lines(ROOT / "docs" / "configuration.md") if line.strip()]
    (tmp_path / "fleet.yaml").write_text("\n".join(lines))

    loaded = load_settings(tmp_path / "fleet.yaml", {}, {})

    assert loaded.settings.model_name == "meta-llama/Llama-2-7b-chat-hf"
    assert loaded.warnings == ()


def test_the_configurations_of_the_readme_load(tmp_path: Path) -> None:
    """Each from its `model:` to the next line that is no YAML of it."""
    blocks = re.findall(r"^    model:\n(?:     .*\n)+", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert blocks
    for block in blocks:
        (tmp_path / "fleet.yaml").write_text("\n".join(line[4:] for line in block.splitlines()))
        loaded = load_settings(tmp_path / "fleet.yaml", {}, {})
        assert loaded.settings.model_name is not None
        assert loaded.warnings == ()


@each_page
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    """To a file, and to a heading in it if it names one."""
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        name, _, heading = link.partition("#")
        target = page.parent / name if name else page
        assert target.exists(), f"{page.name}: {link}"
        assert not heading or heading in headings(target), f"{page.name}: {link}"


def headings(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@each_page
def test_every_command_that_is_shown_is_one(page: Path) -> None:
    """The command's own parser takes it. In running text, `batchfleet NAME` may stand for the command as such."""
    parser = command_parser()
    for line in code_lines(page):
        if command := re.match(r"(?:\.venv/bin/)?batchfleet( .+)?$", line):
            parse(parser, command[1] or "", page)
    for span in code_spans(page):
        if command := re.match(r"(?:\.venv/bin/)?batchfleet ([^<].*)$", span):
            known = subcommands(parser)
            if command[1] not in known:
                parse(parser, command[1], page)


def parse(parser: argparse.ArgumentParser, text: str, page: Path) -> None:
    """Fail unless the parser takes `text`, what a shell would do with its output left out."""
    words = shlex.split(re.split(r"[|>&]", text)[0])
    try:
        parser.parse_args(words)
    except SystemExit:
        pytest.fail(f"{page.name}: no such command: batchfleet {text}")


def subcommands(parser: argparse.ArgumentParser) -> set[str]:
    """`run`, `submit` and so on."""
    return (
        {name for action in parser._subparsers._group_actions for name in action.choices or ()}
        if parser._subparsers
        else set()
    )


def test_the_tables_of_records_are_current() -> None:
    """They are what `python -m scripts.reference.records docs/records.md` writes."""
    page = (ROOT / "docs" / "records.md").read_text(encoding="utf-8")

    assert page == records.renewed(page)


def test_the_failure_kinds_are_those_of_the_code() -> None:
    """Each kind that is described is given to some question, and no other."""
    assert set(KINDS) == {kind for path in source_files(".py") for kind in kinds_in(path)}


def kinds_in(path: Path) -> Iterator[str]:
    """Kinds that a module gives to refusals and failures, as texts or by a name that stands for texts there."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    assigned = [
        (node.target.id, node.value)
        for node in nodes
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value
    ]
    for node in nodes:
        if not (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"Refusal", "error_of"}
        ):
            continue
        kind = next(
            (keyword.value for keyword in node.keywords if keyword.arg == "kind"), node.args[0] if node.args else node
        )
        values = [value for name, value in assigned if name == kind.id] if isinstance(kind, ast.Name) else [kind]
        texts = [
            part.value
            for value in values
            for part in ast.walk(value)
            if isinstance(part, ast.Constant) and isinstance(part.value, str)
        ]
        # `error_of(refusal.kind, ...)` hands on what was found elsewhere.
        assert texts or isinstance(kind, ast.Attribute), f"{path}:{node.lineno}: write the kind as a text"
        yield from texts


@each_page
def test_every_file_that_is_named_is_there(page: Path) -> None:
    """Source files, scripts, tests and folders in backquotes, under their path from the top."""
    for span in code_spans(page):
        if re.fullmatch(rf"(?:{'|'.join(PACKAGES)}|tests|scripts|docs|examples|requirements)/[\w./-]*", span):
            assert (ROOT / span).exists(), f"{page.name}: {span}"


@each_page
def test_every_function_that_is_named_is_there(page: Path) -> None:
    """`name()`, `Class()` and `Class.name()` are defined somewhere in the packages."""
    source = "\n".join(path.read_text(encoding="utf-8") for path in source_files(".py"))
    for span in code_spans(page):
        if name := re.fullmatch(r"(?:([A-Z]\w*)\.)?(\w+)\(\)", span):
            assert re.search(rf"\bdef {name[2]}\(|^class {name[2]}\b", source, re.MULTILINE), f"{page.name}: {span}"
            assert not name[1] or re.search(rf"^class {name[1]}\b", source, re.MULTILINE), f"{page.name}: {span}"


def test_every_test_that_a_promise_names_is_there() -> None:
    """docs/guarantees.md names a file, and then the tests in it that show a promise."""
    named = 0
    file = ROOT / "tests"
    for span in code_spans(ROOT / "docs" / "guarantees.md"):
        if span.startswith("tests/"):
            file = ROOT / span
        elif span.startswith("test_"):
            assert re.search(rf"\bdef {span}\(", file.read_text(encoding="utf-8")), f"{file.name}: {span}"
            named += 1
    assert named > 20


def test_the_way_of_a_question_passes_every_script() -> None:
    """docs/design/one-question.md names every Lua script that changes something of a run."""
    named = set(code_spans(ROOT / "docs" / "design" / "one-question.md"))
    scripts = {str(path.relative_to(ROOT)) for path in source_files(".lua")}
    assert scripts - named <= NOT_ON_THE_WAY


NOT_ON_THE_WAY = {
    "batcher/maintenance/forget_queues.lua",
    "batcher/maintenance/set_aside.lua",
    "batcher/maintenance/tidy.lua",
    "gpu_worker/engines/openai/hold_turn.lua",
    "gpu_worker/reports/announce.lua",
    "gpu_worker/gpus/slice_claim.lua",
    "gpu_worker/gpus/slice_release.lua",
}
"""Scripts that no question passes.

They are about what workers say of themselves, which GPUs they own, what strangers wrote, and what is empty.
"""
