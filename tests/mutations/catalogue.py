"""What is broken on purpose: one line for each, with the promise that it breaks and the test that must notice."""

from __future__ import annotations

from tests.mutations.gateway import GATEWAY
from tests.mutations.mutation import Mutation

FENCES = "tests/integration/test_fences.py::"
DELIVERY = "tests/integration/test_delivery.py::"
CLOCKS = "tests/integration/test_clocks.py::"
ANSWERING = "tests/unit/gpu_worker/test_outcome.py::"
FILE = "tests/story/test_answering_a_file.py::"
LIFECYCLE = "tests/story/test_lifecycle.py::"

PROMISES = {
    "conservation": "Every accepted question gets exactly one line.",
    "hand-over": "A question is in the stream or in exactly one batch job.",
    "fences": "Who lost a lease changes nothing with it.",
    "recovery": "Dead workers' batches go to others.",
    "no barrier": "A batch is never a barrier.",
    "nothing executed": "Nothing found in Redis is executed or imported.",
    "no false answers": "An error is never an answer.",
    "bounds": "Everything is bounded.",
    "progress": "A worker whose engine stalls loses its work; a long generation does not.",
    "isolation": "One bad question harms only itself.",
    "stopping": "A worker told to stop costs nothing.",
    "owners": "Each key of the gateway sees only what is its own, and no path is a client's.",
    "resume": "The same command resumes where it stopped, and nothing else is taken for a continuation.",
}

_WHILE_OURS = "redis.pcall('HGET', KEYS[2], 'lease_token') ~= ARGV[2]"

MUTATIONS = (
    Mutation(
        "the first record does not win", "conservation", "wire/publish.lua",
        "redis.call('SETBIT', KEYS[2], ARGV[i], 1) == 0", "redis.call('SETBIT', KEYS[2], ARGV[i], 1) >= 0",
        f"{FENCES}test_the_first_record_of_a_question_wins",
    ),
    Mutation(
        "a submission is accepted wherever the cursor is", "conservation", "producer/submit.lua",
        "if cursor ~= ARGV[2] then", "if false then",
        f"{FENCES}test_a_submission_sent_twice_is_accepted_once",
    ),
    Mutation(
        "records are acknowledged before their lines are on disk", "conservation", "producer/collector.py",
        "handled = sink.settle(self._seen)", "handled = self._seen",
        f"{DELIVERY}test_what_may_not_be_on_disk_stays_in_redis",
    ),
    Mutation(
        "a record that comes twice becomes two lines", "conservation", "producer/file_source.py",
        "if index >= self._count or is_set(self._written, index):", "if index >= self._count:",
        f"{DELIVERY}test_a_record_that_comes_twice_is_one_line",
    ),
    Mutation(
        "a record of a forgotten run answers a question of the next", "conservation", "wire/publish.lua",
        " or (redis.call('HGET', KEYS[1], 'epoch') or '') ~= ARGV[3]", "",
        "tests/story/test_forgotten_runs.py::test_a_record_of_the_earlier_run_is_dropped",
    ),
    Mutation(
        "a batch is ended before its records are written", "conservation", "gpu_worker/publisher.py",
        ("                    if "
        "by_run:\n"), "                    await self.end(finished)\n                    if by_run:\n",
        "tests/integration/test_publisher.py::test_a_batch_outlives_records_that_redis_refuses",
    ),
    Mutation(
        "records that Redis lost are not missed", "conservation", "gpu_worker/finish.lua",
        "if #lost > 1 then return lost end\n", "",
        "tests/integration/test_publisher.py::test_records_that_redis_lost_are_written_again_before_their_batch_ends",
    ),
    Mutation(
        "what is handed over stays in the stream", "hand-over", "batcher/handover.lua",
        "  redis.call('XDEL', KEYS[2], unpack(ARGV, first, math.min(first + 999, 3 + entries)))\n", "",
        f"{FENCES}test_a_question_is_in_the_stream_or_in_one_batch",
    ),
    Mutation(
        "the hand-over does not look at the lease", "fences", "batcher/fence.lua",
        "if redis.call('GET', leader) ~= table.remove(ARGV, 1) then return false end\n", "table.remove(ARGV, 1)\n",
        f"{FENCES}test_a_batcher_that_lost_its_lease_changes_nothing",
    ),
    Mutation(
        "what the batcher moves on is refused by a full Redis", "bounds", "batcher/fence.lua",
        "redis.call('DEL', leader .. ':nothing')\n", "",
        "tests/integration/test_full_redis.py::test_a_full_redis_empties_itself",
    ),
    Mutation(
        "two batchers lead", "fences", "batcher/leadership.py",
        "if holder and left >= 0 and left <= 10 * ARGV[2] then return 0 end", "",
        f"{FENCES}test_only_one_batcher_leads_and_a_released_lease_is_free_at_once",
    ),
    Mutation(
        "finishing does not look at the token", "fences", "gpu_worker/finish.lua",
        f"if {_WHILE_OURS} then return {{0}} end", "",
        f"{FENCES}test_a_worker_that_lost_its_lease_cannot_end_the_batch",
    ),
    Mutation(
        "giving back does not look at the token", "fences", "gpu_worker/give_back.lua",
        f"if {_WHILE_OURS} then return 0 end", "",
        f"{FENCES}test_a_worker_that_lost_its_lease_can_neither_renew_nor_return_it",
    ),
    Mutation(
        "renewing steals a batch back", "fences", "gpu_worker/heartbeat.lua",
        "if redis.pcall('HGET', ARGV[4] .. ARGV[i], 'lease_token') == ARGV[i + 1] then", "if true then",
        f"{FENCES}test_a_worker_that_lost_its_lease_can_neither_renew_nor_return_it",
    ),
    Mutation(
        "a worker does not regain leases whose set was damaged", "fences", "gpu_worker/heartbeat.lua",
        ("redis.call('ZADD', KEYS[3], now + ARGV[3], "
        "ARGV[i])"), "redis.call('ZADD', KEYS[3], 'XX', now + ARGV[3], ARGV[i])",
        "tests/integration/test_orphans.py::test_a_worker_regains_leases_that_were_lost_under_it",
    ),
    Mutation(
        "batches of a damaged queue are not listed again", "conservation", "batcher/maintenance/orphans.py",
        "            found += self._step()\n", "            pass\n",
        "tests/integration/test_orphans.py::test_what_waited_in_a_damaged_queue_waits_again",
    ),
    Mutation(
        "a lease from a clock that was set back is believed", "recovery", "batcher/maintenance/reap.lua",
        "  redis.call('ZADD', KEYS[1], now + ARGV[4], id)\n", "",
        "tests/integration/test_clock_set_back.py::test_the_batch_of_a_dead_worker_is_taken_back_soon",
    ),
    Mutation(
        "a producer stops collecting while Redis is full", "bounds", "producer/sender.py",
        "            if not is_full(error):\n                raise\n", "            raise\n",
        "tests/integration/test_full_redis.py::test_a_producer_collects_while_redis_is_full",
    ),
    Mutation(
        "a batch that is taken back keeps its token", "fences", "batcher/maintenance/reap.lua",
        "    redis.call('HDEL', job, 'lease_token')\n", "",
        f"{FENCES}test_a_lapsed_batch_is_nobodys_until_it_is_claimed",
    ),
    Mutation(
        "a producer that lost its run drops its records", "fences", "producer/acknowledge.lua",
        "if holder and holder ~= ARGV[1] then return 0 end", "",
        f"{DELIVERY}test_a_producer_that_lost_its_run_drops_nothing",
    ),
    Mutation(
        "a claim makes no lease", "recovery", "gpu_worker/claim.lua",
        "    redis.call('ZADD', KEYS[2], now + ARGV[3], id)\n", "",
        f"{FENCES}test_a_lapsed_batch_goes_to_another_worker_with_everything_in_it",
    ),
    Mutation(
        "the reaper takes back and tells nobody", "recovery", "batcher/maintenance/reap.lua",
        "    redis.call('LPUSH', (was[3] or deaths >= tonumber(ARGV[3])) and KEYS[3] or KEYS[2], id)\n", "",
        f"{FENCES}test_a_lapsed_batch_goes_to_another_worker_with_everything_in_it",
    ),
    Mutation(
        "a child outlives its parent", "recovery", "batchfleet/supervisor/die_with_parent.py",
        "ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)", "pass",
        "tests/unit/batchfleet/test_processes.py::test_a_child_dies_with_its_parent",
    ),
    Mutation(
        "a worker takes nothing more while anything is in flight", "no barrier", "gpu_worker/claim_loop.py",
        "full = held >= self._capacity or", "full = held > 0 or",
        f"{FILE}test_a_batch_is_no_barrier",
    ),
    Mutation(
        "a job may name any function", "nothing executed", "wire/codec.py",
        "if name == BATCH_FUNCTION and not kwargs:", "if True:",
        "tests/unit/wire/test_codec.py::test_a_job_that_names_another_function_is_refused",
    ),
    Mutation(
        "a dead engine is a failure of the question", "no false answers", "gpu_worker/outcome.py",
        "        except (EngineDeadError, EngineUnusableError):\n            raise\n", "",
        f"{ANSWERING}test_a_dead_engine_is_no_record_at_all",
    ),
    Mutation(
        "a failure that may pass is not tried again", "no false answers", "gpu_worker/outcome.py",
        "reversed(range(patience.tries))", "reversed(range(1))",
        f"{ANSWERING}test_a_failure_that_may_pass_is_tried_again",
    ),
    Mutation(
        "a worker holds images without end", "bounds", "gpu_worker/images/byte_budget.py",
        "self._waiting[0][0] <= self._left", "True",
        "tests/unit/gpu_worker/test_images.py::test_images_of_all_questions_in_flight_are_bounded",
    ),
    Mutation(
        "images are fetched without end at once", "bounds", "gpu_worker/images/resolver.py",
        "asyncio.Semaphore(options.max_fetches)", "asyncio.Semaphore(1000)",
        "tests/unit/gpu_worker/test_images.py::test_images_of_a_question_are_fetched_at_once_within_the_limit",
    ),
    Mutation(
        "the window of a run has no end", "bounds", "producer/submit.lua",
        "> tonumber(ARGV[7]) then return {'window'} end", "> math.huge then return {'window'} end",
        f"{FENCES}test_the_window_of_a_run_and_the_bound_of_the_fleet_hold_a_producer_back",
    ),
    Mutation(
        "a run never ends by itself", "bounds", "producer/submit.lua",
        "for i = 1, 4 do redis.call('EXPIRE', KEYS[i], ARGV[4]) end\n", "",
        f"{FENCES}test_what_a_run_leaves_ends_by_itself",
    ),
    Mutation(
        "a stall is never found out", "progress", "gpu_worker/heartbeat.py",
        "if self._still_s >= self._stall_s:", "if False:",
        f"{ANSWERING}test_a_stalled_engine_is_found_out",
    ),
    Mutation(
        "progress does not count", "progress", "gpu_worker/heartbeat.py",
        "if count != self._count or not busy:", "if not busy:",
        f"{ANSWERING}test_half_an_hour_of_generation_with_progress_is_no_stall",
    ),
    Mutation(
        "a process that was stopped is blamed for the time", "progress", "gpu_worker/heartbeat.py",
        "min(self._now() - self._looked_at, LONGEST_LOOK_S)", "self._now() - self._looked_at",
        f"{ANSWERING}test_a_process_that_was_stopped_for_an_hour_has_not_seen_an_hour_of_stall",
    ),
    Mutation(
        "a producer believes its own clock", "progress", "producer/sender.py",
        "        self.clock.learn(counts[6] + counts[7] / 1e6)\n", "",
        f"{CLOCKS}test_a_producer_learns_the_time_as_it_opens_its_run",
    ),
    Mutation(
        "a worker believes its own clock", "progress", "gpu_worker/heartbeat.py",
        "        self._clock.learn(int(seconds) + int(micros) / 1e6)\n", "",
        f"{CLOCKS}test_a_worker_learns_the_time_with_every_heartbeat",
    ),
    Mutation(
        "one question is convicted on little evidence", "isolation", "batcher/maintenance/suspects.py",
        "DEATHS_ALONE = 3", "DEATHS_ALONE = 1",
        "tests/unit/batcher/test_quarantine.py::test_an_innocent_question_survives_four_workers_killed_from_outside",
    ),
    Mutation(
        "suspects are not divided", "isolation", "batcher/maintenance/suspects.py",
        "    size = -(-len(questions) // PARTS)\n", "    size = max(1, len(questions) - 1)\n",
        "tests/unit/batcher/test_quarantine.py::test_the_culprit_is_found_within_the_promised_deaths",
    ),
    Mutation(
        "what kills engines goes on to the next one", "isolation", "gpu_worker/give_back.lua",
        "(alone or deaths >= tonumber(ARGV[3]))", "alone",
        f"{FENCES}test_a_batch_whose_engines_die_becomes_suspect",
    ),
    Mutation(
        "a hanging question never times out", "isolation", "gpu_worker/outcome.py",
        "TimeLimit(patience.timeout_s)", "TimeLimit(60)",
        f"{ANSWERING}test_a_question_without_end_times_out",
    ),
    Mutation(
        "a worker that stops does not finish what it holds", "stopping", "gpu_worker/service.py",
        "            await self._drain()\n", "",
        f"{LIFECYCLE}test_a_drained_worker_finishes_what_it_holds_and_ends",
    ),
    Mutation(
        "giving back counts as an attempt", "stopping", "gpu_worker/give_back.lua",
        ("math.max(0, count(redis.call('HGET', KEYS[2], 'attempts')) - "
        "1)"), "count(redis.call('HGET', KEYS[2], 'attempts'))",
        f"{FENCES}test_a_batch_that_is_given_back_is_next_and_was_no_attempt",
    ),
    Mutation(
        "a run continues with other questions", "resume", "producer/open_run.lua",
        "if stored and stored ~= ARGV[5] then return {'differs', stored} end", "",
        f"{FENCES}test_a_run_made_of_something_else_is_refused",
    ),
    Mutation(
        "a torn line stays", "resume", "producer/answers/answers_file.py",
        "        if end < size:\n", "        if end < 0:\n",
        f"{FILE}test_a_torn_last_line_is_mended",
    ),
    *GATEWAY,
)  # fmt: skip


def as_table() -> str:
    """The list, in Markdown."""
    tests = ["`: `".join(one.test.split("::")) for one in MUTATIONS]
    rows = [f"| {one.what} | `{one.file}` | `{test}` |" for one, test in zip(MUTATIONS, tests, strict=True)]
    return "\n".join(["| what is broken | where | which test fails then |", "|---|---|---|", *rows])
