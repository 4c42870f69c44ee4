"""Where and as whom a service's pods run: spec.workload, as far as it goes into the children as it stands. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

# Fields of a pod's spec that mean the same in spec.workload.
_POD_FIELDS: Final = ("nodeSelector", "tolerations", "affinity", "priorityClassName")


@dataclass(frozen=True, slots=True)
class Autoscaling:
    """Between how many pods, and at which use of CPU (percent of what each requests)."""

    least: int
    most: int
    cpu_utilization: int

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> Autoscaling:
        return cls(spec["min"], spec["max"], spec["targetCPUUtilization"])


@dataclass(frozen=True, slots=True)
class Workload:
    """Fields of spec.workload; None or empty where they are absent."""

    pod_fields: Mapping[str, Any]
    spread: tuple[Mapping[str, Any], ...]
    service_account: str | None
    disruption_budget: Mapping[str, Any] | None
    tls_secret: str | None
    """Of type kubernetes.io/tls; then the service port speaks TLS."""
    autoscaling: Autoscaling | None
    """The number of pods is then not the operator's."""

    @classmethod
    def parse(cls, spec: Mapping[str, Any]) -> Workload:
        return cls(
            pod_fields={name: spec[name] for name in _POD_FIELDS if spec.get(name)},
            spread=tuple(spec.get("topologySpreadConstraints") or ()),
            service_account=spec.get("serviceAccountName"),
            disruption_budget=spec.get("podDisruptionBudget"),
            tls_secret=(spec.get("tls") or {}).get("secretName"),
            autoscaling=Autoscaling.parse(spec["autoscaling"]) if "autoscaling" in spec else None,
        )

    def scheduling(self, selector: Mapping[str, str]) -> dict[str, Any]:
        """Fields to put into the spec of the pods that `selector` selects: constraints count those and no others."""
        fields = copy.deepcopy(dict(self.pod_fields))
        if self.spread:
            fields["topologySpreadConstraints"] = [
                {**constraint, "labelSelector": {"matchLabels": dict(selector)}} for constraint in self.spread
            ]
        return fields
