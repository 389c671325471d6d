"""An optimizer that plans with wishes of the operator's, whatever the manager asks for besides the profile."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flux_engine.models.planning.gpus import GpuProperties
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Plan, Preferences
from flux_engine.models.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Wishing(ModelOptimizer):
    """As ModelOptimizer, with `wishes`."""

    wishes: Preferences

    def plan(self, gpu: GpuProperties, model: ModelSpec, preferences: Preferences | None = None) -> Plan:
        profile = (preferences or self.wishes).profile
        return super().plan(gpu, model, replace(self.wishes, profile=profile))
