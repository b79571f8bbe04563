"""What is broken on purpose in the gateway; a part of the catalogue."""

from __future__ import annotations

from tests.mutations.mutation import Mutation

UNIT = "tests/unit/batchfleet/test_gateway_"
FILES = f"{UNIT}files.py::"
BATCHES = f"{UNIT}batch_owners.py::"

GATEWAY = (
    Mutation(
        "a key finds the files of another", "owners", "batchfleet/gateway/file_table.py",
        '"SELECT * FROM files WHERE id = ? AND owner = ?"',
        '"SELECT * FROM files WHERE id = ? AND ? IS NOT NULL"',
        f"{FILES}test_another_key_finds_nothing",
    ),
    Mutation(
        "a key finds the batches of another", "owners", "batchfleet/gateway/batch_table.py",
        '"SELECT * FROM batches WHERE id = ? AND owner = ?"',
        '"SELECT * FROM batches WHERE id = ? AND ? IS NOT NULL"',
        f"{BATCHES}test_another_key_finds_no_batch_and_none_of_its_files",
    ),
    Mutation(
        "any key is let in", "owners", "batchfleet/gateway/api_keys.py",
        "if hmac.compare_digest(digest, known):",
        "if known:",
        f"{UNIT}access.py::test_a_new_key_is_let_in_under_its_name_and_no_other_is",
    ),
    Mutation(
        "a client's path is kept as a name", "owners", "batchfleet/gateway/form_to_disk.py",
        're.split(r"[/\\\\]", filename)[-1]',
        "filename",
        f"{FILES}test_a_file_name_is_a_label_and_no_path",
    ),
    Mutation(
        "a batch takes a custom_id twice", "conservation", "batchfleet/gateway/batch_file.py",
        "if keeper is not None:",
        "if keeper == 0:",
        f"{UNIT}batch_file.py::test_a_bad_line_is_told_by_code_and_number",
    ),
    Mutation(
        "a repeated call makes a second batch", "conservation", "batchfleet/gateway/batch_table.py",
        "if made := earlier(database, repeat):",
        "if made := earlier(database, None):",
        f"{BATCHES}test_a_request_that_comes_again_makes_nothing_new",
    ),
    Mutation(
        "a key may have any number of files", "bounds", "batchfleet/gateway/files.py",
        "request.app.state.files.count, owner) >= most:",
        "request.app.state.files.count, owner) < 0:",
        f"{FILES}test_more_files_than_a_key_may_have_are_refused",
    ),
    Mutation(
        "a bug is tried once more than it may", "bounds", "batchfleet/gateway/batch_process.py",
        "if tries >= MOST_TRIES:",
        "if tries > MOST_TRIES:",
        "tests/story/test_gateway_failed_batch.py::test_a_bug_that_stays_ends_a_batch_and_keeps_its_answers",
    ),
    Mutation(
        "online questions leave batches nothing", "bounds", "batchfleet/gateway/fleet_questions.py",
        "return options.online_priority if in_flight < most else options.batch_priority",
        "return options.online_priority if most else 0",
        f"{UNIT}access.py::test_online_questions_go_first_and_leave_batches_their_share",
    ),
)  # fmt: skip
