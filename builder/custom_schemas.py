"""Schemas of the custom resources in deploy/kubernetes, for its tests: the structure of the projects' own definitions.

    python -m builder.custom_schemas Apache-2.0 v1.6 gateway-api/config/crd/standard/*_httproutes.yaml

The definition of one version, with its `spec` and without words, statuses and rules in CEL, becomes
tests/deploy/schemas/<kind>.json, and an object with a field that no schema knows is invalid.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any, Final

import yaml

FOLDER: Final = Path(__file__).parents[1] / "tests" / "deploy" / "schemas"
WORDS: Final = ("description", "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-list-map-keys")
OPEN: Final = "x-kubernetes-preserve-unknown-fields"


def main(licence: str, release: str, files: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for file in files:
        data = Path(file).read_bytes()
        crd = yaml.safe_load(data)
        kind = crd["spec"]["names"]["kind"]
        version = next(one for one in crd["spec"]["versions"] if one["storage"])
        facts = {
            "group": crd["spec"]["group"],
            "kind": kind,
            "version": version["name"],
            "release": release,
            "licence": licence,
            "sha256": hashlib.sha256(data).hexdigest(),
            "spec": structure(version["schema"]["openAPIV3Schema"]["properties"]["spec"]),
        }
        (FOLDER / f"{kind}.json").write_text(json.dumps(facts, separators=(",", ":")) + "\n", encoding="utf-8")


def structure(schema: Any) -> Any:
    """`schema` as strict JSON Schema: an object takes the properties that it names and no others."""
    if isinstance(schema, list):
        return [structure(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {name: value for name, value in schema.items() if name not in WORDS or not _is_word(value)}
    made = {name: _named(value) if name == "properties" else structure(value) for name, value in kept.items()}
    if "properties" in made and OPEN not in made:
        made.setdefault("additionalProperties", False)
    return made


def _named(properties: dict[str, Any]) -> dict[str, Any]:
    """By name: a property may itself be called `description`."""
    return {name: structure(value) for name, value in properties.items()}


def _is_word(value: Any) -> bool:
    return isinstance(value, str | list)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
