"""A kind of contract that import-linter lacks: packages from outside that have rooms of their own.

    [[tool.importlinter.contracts]]
    name = "torch stays in models/ and generate/, and waits for a job that needs it"
    type = "rooms"
    packages = ["torch"]
    rooms = ["flux_engine.models", "flux_engine.generate"]
    lazy = true

A package that nobody imports yet, or a room that does not stand yet, is no error: the contract holds from the first
import on. `lazy` forbids imports that run when their module is imported, in the rooms too.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grimp
from importlinter import Contract, ContractCheck, fields, output


class RoomsContract(Contract):
    """Only `rooms` import `packages`; with `lazy`, only inside functions or for type checking."""

    type_name = "rooms"

    # import-linter replaces each field by its value, in every instance.
    packages: Any = fields.SetField(subfield=fields.StringField())
    rooms: Any = fields.SetField(subfield=fields.StringField())
    lazy: Any = fields.BooleanField(required=False, default=False)

    def check(self, graph: grimp.ImportGraph, verbose: bool) -> ContractCheck:
        packages = graph.modules & self.packages
        importers = {(m, p) for p in packages for m in graph.find_modules_that_directly_import(p)}
        outside = [
            f"{importer} -> {package}: allowed in {', '.join(sorted(self.rooms))} alone"
            for importer, package in sorted(importers)
            if not any(f"{importer}.".startswith(f"{room}.") for room in self.rooms)
        ]
        eager = [
            f"{importer} -> {package} (l.{line}): import it in the function that needs it"
            for importer in sorted({importer for importer, _ in importers} if self.lazy else ())
            for package, line in eager_imports(_source(importer))
            if package in packages
        ]
        return ContractCheck(kept=not (outside or eager), metadata={"lines": outside + eager})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["lines"]:
            output.print_error(f"- {line}", bold=False)
        output.new_line()


def eager_imports(source: str) -> Iterator[tuple[str, int]]:
    """The top-level package and the line of each import that runs when the module is imported."""
    pending: list[ast.AST] = [ast.parse(source)]
    while pending:
        node = pending.pop()
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue
            case ast.If() if ast.unparse(node.test).endswith("TYPE_CHECKING"):
                pending.extend(node.orelse)
                continue
            case ast.Import():
                for name in node.names:
                    yield name.name.partition(".")[0], node.lineno
            case ast.ImportFrom() if node.module and not node.level:
                yield node.module.partition(".")[0], node.lineno
        pending.extend(ast.iter_child_nodes(node))


def _source(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None  # grimp has just read it there
    return Path(spec.origin or "").read_text(encoding="utf-8")
