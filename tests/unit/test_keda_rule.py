"""What the ScaledObject of deploy/kubernetes does over simulated hours: KEDA's rule, pods that boot, questions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest

from batchfleet.supervisor.scale_rule import Load, needed_workers
from tests.keda import SYNC_S, KedaRule, scaled_object

CAPACITY, ANSWER_S, BOOT_S, SCRAPE_S = 100, 5, 100, 15
"""A worker answers 20 questions a second: 2 000 while another boots, as the manifest has it."""
STEPWISE = {"stabilizationWindowSeconds": 300, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}


@dataclass
class Pod:
    """A worker. `held`: when each of its questions will be answered."""

    ready_s: int
    held: list[int] = field(default_factory=list)
    is_leaving: bool = False


@dataclass
class Cluster:
    """Lives by the rule, a second a step; Kubernetes picks the busiest pod to go, which drains.

    Attributes:
        rule: Of its one Deployment.
        replicas: What was asked for, each second.
        asked_busy: Pods that were asked to go while they held questions.
        boots: Pods that were started.
    """

    rule: KedaRule
    replicas: list[int] = field(default_factory=list)
    asked_busy: int = 0
    boots: int = 0
    answered: int = 0
    last_answer_s: int = 0
    _pods: list[Pod] = field(default_factory=list)
    _waiting: list[int] = field(default_factory=list)
    _scraped: float | None = None

    def live(self, asked: Mapping[int, list[int]], until_s: int, *, away: range = range(0)) -> None:
        """`asked`: at each second, how long each new question takes. `away`: when nothing answers Prometheus."""
        for now in range(until_s):
            self._waiting += asked.get(now, [])
            for pod in self._pods:
                self._work(pod, now)
            self._pods = [pod for pod in self._pods if pod.held or not pod.is_leaving]
            if not now % SCRAPE_S:
                self._scraped = None if now in away else self._unanswered
            if not now % self.rule.spec["pollingInterval"]:
                self.rule.poll(self._scraped, now)
            if now % SYNC_S == SYNC_S // 2:
                self.rule.sync(self._scraped, now)
            self._follow(now)
            self.replicas.append(self.rule.replicas)

    @property
    def _unanswered(self) -> int:
        return len(self._waiting) + sum(len(pod.held) for pod in self._pods)

    def _work(self, pod: Pod, now: int) -> None:
        done = sum(until <= now for until in pod.held)
        if done:
            self.answered, self.last_answer_s = self.answered + done, now
            pod.held = [until for until in pod.held if until > now]
        if now >= pod.ready_s and not pod.is_leaving:
            room = CAPACITY - len(pod.held)
            pod.held += [now + lasts for lasts in self._waiting[:room]]
            del self._waiting[:room]

    def _follow(self, now: int) -> None:
        staying = sorted((pod for pod in self._pods if not pod.is_leaving), key=lambda pod: -len(pod.held))
        for pod in staying[: max(0, len(staying) - self.rule.replicas)]:
            self.asked_busy += bool(pod.held)
            pod.is_leaving = True
        for _ in range(self.rule.replicas - len(staying)):
            self.boots += 1
            self._pods.append(Pod(now + BOOT_S))

    @property
    def steps(self) -> list[int]:
        """The numbers of pods that were asked for, one after the other."""
        return [after for before, after in zip([-1, *self.replicas], self.replicas, strict=False) if before != after]


def test_a_burst_takes_it_from_zero_to_the_most_and_back() -> None:
    """Twice the same: one pod, then as many as the backlog is worth, then none once all is answered and idle."""
    cluster = Cluster(KedaRule(scaled_object()))

    cluster.live({100: [ANSWER_S] * 9000, 3000: [ANSWER_S] * 5000}, 5000)

    assert (cluster.answered, cluster.asked_busy) == (14_000, 0)
    assert cluster.steps == [0, 1, 4, 0, 1, 3, 0]
    idle_s = len(cluster.replicas) - cluster.replicas[::-1].index(3) - cluster.last_answer_s
    assert 300 <= idle_s <= 300 + 3 * SYNC_S


def test_a_long_tail_keeps_its_worker_and_all_others() -> None:
    """Three answers that take an hour: nobody is asked to go before the last of them is there."""
    cluster = Cluster(KedaRule(scaled_object()))

    cluster.live({0: [*[ANSWER_S] * 9000, 3600, 3600, 3600]}, 5000)

    assert (cluster.answered, cluster.asked_busy) == (9003, 0)
    assert cluster.steps == [1, 4, 0]
    assert cluster.last_answer_s > 3600


@pytest.mark.parametrize("every_s", [20, 250])
def test_a_trickle_or_bursts_within_the_idle_time_boot_nothing_again(every_s: int) -> None:
    """For two hours: one worker stays where one will do, and the same ones serve every burst."""
    questions = {20: 1, 250: 4000}[every_s]
    cluster = Cluster(KedaRule(scaled_object()))

    cluster.live({now: [ANSWER_S] * questions for now in range(0, 7200, every_s)}, 7200 + 600)

    assert cluster.steps == {20: [1, 0], 250: [1, 2, 0]}[every_s]
    assert cluster.boots == max(cluster.steps)
    assert cluster.asked_busy == 0


@pytest.mark.parametrize(("away", "steps"), [(range(200, 2000), [0, 1, 4, 0]), (range(2000), [0, 1, 2, 0])])
def test_what_is_not_known_changes_nothing(away: range, steps: list[int]) -> None:
    """Redis, the leading batcher or Prometheus are away for half an hour, under load or at zero."""
    cluster = Cluster(KedaRule(scaled_object()))

    cluster.live({100: [ANSWER_S] * 9000, 1990: [ANSWER_S] * 3000}, 3500, away=away)

    assert set(cluster.replicas[away.start + SCRAPE_S : away.stop]) == {steps[2] if away.start else 0}
    assert (cluster.answered, cluster.asked_busy) == (12_000, 0)


def test_stepwise_lets_one_a_minute_go_and_loses_nothing() -> None:
    """For traffic that never ends: from a burst down to what the rest is worth; who goes finishes what it holds."""
    cluster = Cluster(KedaRule(scaled_object(scaleDown=STEPWISE)))
    asked = {now: [ANSWER_S] * 10 for now in range(3000)} | {0: [ANSWER_S] * 9000}

    cluster.live(asked, 3600)

    assert cluster.steps == [1, 4, 3, 2, 1, 0]
    assert cluster.answered == 9000 + 10 * 2999
    falls = [now for now, (before, after) in enumerate(itertools.pairwise(cluster.replicas)) if after < before]
    assert min(later - sooner for sooner, later in itertools.pairwise(falls)) >= 60


@pytest.mark.parametrize("unanswered", [0, 1, 99, 2000, 2001, 4100, 6000, 1_000_000])
def test_it_approximates_the_rule_of_up(unanswered: int) -> None:
    """With `threshold` as the docs say, it has as many workers as `up --workers 0:4`, or one more."""
    rule = KedaRule(scaled_object())
    load = Load(unanswered, CAPACITY, per_s=CAPACITY / ANSWER_S, boot_s=BOOT_S)
    assert float(rule.trigger["threshold"]) == load.per_s * load.boot_s

    for now in range(0, 600, SYNC_S):
        rule.poll(unanswered, now)
        rule.sync(unanswered, now)

    assert rule.replicas - min(4, needed_workers(load)) in {0, 1}
