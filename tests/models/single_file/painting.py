"""One small picture by a model in a file, and by one in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flux_engine.models.loading import Source, load_tuned
from flux_engine.models.planning.gpus import cpu_machine
from flux_engine.models.planning.optimizer import ModelOptimizer
from flux_engine.models.planning.plan import Preferences
from flux_engine.models.single_file.base import BasedFile
from flux_engine.models.spec import ModelSpec
from flux_engine.units import GIB
from tests.models.tiny_models import call_arguments


def of_file(found: BasedFile, **preferences: Any) -> Any:
    return _painted(found.spec, Source(folder=found.folder, revision="1", file=found.file), **preferences)


def of_folder(spec: ModelSpec, folder: Path, **preferences: Any) -> Any:
    return _painted(spec, Source(folder=folder, revision="1"), **preferences)


def _painted(spec: ModelSpec, source: Source, **preferences: Any) -> Any:
    plan = ModelOptimizer().plan(cpu_machine(total_bytes=16 * GIB), spec, Preferences(**preferences))
    pipeline = load_tuned(spec, source, plan, device="cpu").pipeline
    return pipeline(prompt="a red sun", **call_arguments(spec)).images[0]
