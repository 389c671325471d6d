"""Every setting that the manifests leave at its default, as comments in deploy/kubernetes/base/config.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic.fields import FieldInfo

from flux_engine.gateway.settings import PARTS, GatewaySettings
from flux_engine.queues.celery_settings import CelerySettings
from flux_engine.settings import Settings

PAGE: Final = Path(__file__).parents[1] / "deploy" / "kubernetes" / "base" / "config.yaml"
BLOCK: Final = re.compile(r"(  # begin:settings[^\n]*\n).*?(  # end:settings\n)", re.DOTALL)
OF: Final = (("both", Settings), ("the gateway", GatewaySettings), ("Celery", CelerySettings))


def page() -> str:
    return BLOCK.sub(lambda block: block[1] + "".join(_lines()) + block[2], PAGE.read_text(encoding="utf-8"))


def _lines() -> Iterator[str]:
    for who, settings in OF:
        yield f"  # {who}:\n"
        for name, field in settings.model_fields.items():
            if name not in PARTS:
                yield f"  # {name.upper()}: {_default(field)}\n"


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is None:
        return "unset"
    return ",".join(value) if isinstance(value, tuple) else str(value)
