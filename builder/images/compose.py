"""The compose file as docker compose reads it: defaults filled in, services in the order of what they depend on."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, Final

import yaml

VARIABLE: Final = re.compile(r"\$\$|\$\{(\w+)(?::-([^}]*))?\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    name: str
    image: str
    command: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    healthcheck: tuple[str, ...] = ()
    build_args: Mapping[str, str] = field(default_factory=dict)
    dockerfile: str | None = None
    volumes: Mapping[str, str] = field(default_factory=dict)
    """Where each named one is in the container."""
    is_optional: bool = False
    """It starts only with a profile."""


def services(file: Path) -> list[Service]:
    """Each after what it needs, the optional ones too."""
    held = _filled(yaml.safe_load(file.read_text(encoding="utf-8")))["services"]
    order = TopologicalSorter({name: tuple(said.get("depends_on", ())) for name, said in held.items()})
    return [_service(name, held[name]) for name in order.static_order()]


def _service(name: str, said: Mapping[str, Any]) -> Service:
    build = said.get("build")
    test = said.get("healthcheck", {}).get("test", [])
    return Service(
        name=name,
        image=said["image"],
        command=tuple(said.get("command", ())),
        environment={key: str(value) for key, value in said.get("environment", {}).items()},
        healthcheck=tuple(test[1:]) if test[:1] == ["CMD"] else (),
        build_args=dict(build.get("args", {})) if build else {},
        dockerfile=build.get("dockerfile", "Dockerfile") if build else None,
        is_optional="profiles" in said,
        volumes=dict(volume.split(":")[:2] for volume in said.get("volumes", ())),
    )


def _filled(value: Any) -> Any:
    if isinstance(value, str):
        return VARIABLE.sub(_value, value)
    if isinstance(value, list):
        return [_filled(one) for one in value]
    if isinstance(value, dict):
        return {key: _filled(one) for key, one in value.items()}
    return value


def _value(found: re.Match[str]) -> str:
    return "$" if found[0] == "$$" else os.environ.get(found[1]) or found[2] or ""
