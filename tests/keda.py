"""How KEDA, and the HorizontalPodAutoscaler that it makes, scale a Deployment by a ScaledObject; over any clock.

Between none and some after KEDA 2.20's executor (pkg/scaling/executor), between some and more after the documented
algorithm of the HorizontalPodAutoscaler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import yaml

from tests.processes import ROOT

SYNC_S = 15
"""How often the HorizontalPodAutoscaler looks (--horizontal-pod-autoscaler-sync-period)."""
TOLERANCE = 0.1
"""Within this of its target it does nothing (--horizontal-pod-autoscaler-tolerance)."""
MANIFEST = ROOT / "deploy/kubernetes/plain/keda/scaled-objects.yaml"


def scaled_object(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 (as YAML has it)
    """The spec of the one that the plain manifests have; `changes` replace parts of its autoscaler's `behavior`."""
    (found,) = filter(None, yaml.safe_load_all(MANIFEST.read_text()))
    spec: dict[str, Any] = found["spec"]
    spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"].update(changes)
    return spec


@dataclass
class KedaRule:
    """Of one ScaledObject with one trigger.

    Attributes:
        spec: As in the manifest.
        replicas: Pods that are asked for now.
    """

    spec: dict[str, Any]
    replicas: int = 0
    _last_active_s: float = -math.inf
    _recommended: list[tuple[float, int]] = field(default_factory=list)
    _changes: list[tuple[float, int]] = field(default_factory=list)

    @property
    def trigger(self) -> dict[str, str]:
        """Of its only trigger: query, thresholds."""
        (trigger,) = self.spec["triggers"]
        assert (trigger["type"], trigger["metricType"]) == ("prometheus", "AverageValue")
        metadata: dict[str, str] = trigger["metadata"]
        return metadata

    def poll(self, value: float | None, now_s: float) -> None:
        """KEDA's look, each `pollingInterval`. None: the query gave nothing, which is an error unless ignored."""
        if value is None:
            if self.trigger["ignoreNullValues"] == "false":
                return
            value = 0
        least = self.spec["minReplicaCount"]
        if value > float(self.trigger["activationThreshold"]):
            self._last_active_s = now_s
            self.replicas = self.replicas or max(1, least)
        elif not least and now_s - self._last_active_s > self.spec["cooldownPeriod"]:
            self.replicas = 0

    def sync(self, value: float | None, now_s: float) -> None:
        """The autoscaler's look, each SYNC_S: it does nothing at zero, and nothing without a value."""
        if not self.replicas:
            self._recommended.clear()
        elif value is not None:
            behavior = self.spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
            before = self.replicas
            self._recommended.append((now_s, self._wanted(value)))
            self.replicas = self._allowed(behavior["scaleUp"], min, now_s)
            if behavior["scaleDown"].get("selectPolicy") != "Disabled" and self.replicas == before:
                self.replicas = self._allowed(behavior["scaleDown"], max, now_s)
            self._changes.append((now_s, self.replicas - before))

    def _wanted(self, value: float) -> int:
        threshold = float(self.trigger["threshold"])
        is_near = abs(value / (threshold * self.replicas) - 1) <= TOLERANCE
        wanted = self.replicas if is_near else math.ceil(value / threshold)
        least, most = int(self.spec["minReplicaCount"]), int(self.spec["maxReplicaCount"])
        return max(1, least, min(wanted, most))

    def _allowed(self, rules: dict[str, Any], end: Any, now_s: float) -> int:  # noqa: ANN401 (`min` for up, `max` for down)
        """Replicas after the most cautious recommendation of the window, and its only policy: so many in a time."""
        window_s, (policy,) = rules["stabilizationWindowSeconds"], rules["policies"]
        wanted: int = end(found for at_s, found in self._recommended if at_s >= now_s - window_s)
        sign = 1 if end is min else -1
        if (wanted - self.replicas) * sign <= 0:
            return self.replicas
        lately = sum(change for at_s, change in self._changes if at_s > now_s - policy["periodSeconds"])
        began = self.replicas - (lately if lately * sign > 0 else 0)
        return sign * max(sign * self.replicas, min(sign * wanted, sign * began + int(policy["value"])))
