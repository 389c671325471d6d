"""Quantised components kept on a volume, so that later workers read half the bytes and quantise nothing.

A checkpoint is a folder with one folder for each component that was quantised, readable by its class, and a manifest.
It is either whole or not there. The folder that it is written in is the lock: whoever makes it writes. A writer that
was killed is known by the file lock that it no longer holds, or on another machine by the age of its folder. Memory is
bounded by a shard: each is copied, flattened and written by itself.

Nothing here decides whether a checkpoint is worth writing: see keeper.py.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flux_engine.models.tuning.versions import version_of
from flux_engine.settings import Quantisation
from flux_engine.units import MIB

KEY_PACKAGES: Final = ("torch", "torchao", "diffusers", "transformers")
LAYOUT: Final = 2  # of what is kept: which layers have which scales
MANIFEST: Final = "checkpoint.json"
LOCK: Final = "writer.lock"  # held while its folder is written; names the machine of whoever holds it
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
SHARD_BYTES: Final = 512 * MIB
ABANDONED_S: Final = 600.0  # a shard takes seconds; a writer that wrote none for so long was killed
UNUSED_S: Final = 7 * 86_400.0  # a checkpoint of other library versions that nobody loaded for so long goes


def checkpoint_folder(
    volume: Path,
    *,
    model_id: str,
    revision: str,
    dtype: str,
    quantisations: Mapping[str, Quantisation],
    is_compiled: bool,
) -> Path:
    """Where the checkpoint of a model belongs: another revision, dtype, scheme or library is another folder, and one
    whose layers will be compiled."""
    layers = [LAYOUT, is_compiled, _schemes(quantisations)]
    identity = json.dumps([model_id, revision, dtype, layers, _versions()], sort_keys=True)
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    return volume / "quantised" / f"{model_id.rpartition('/')[2]}-{digest}"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The weights of quantised components as they are at the moment of reading: by names from before PEFT, cache and
    offloading wrapped anything, each with the module that holds it."""

    components: Mapping[str, Any]
    holders: Mapping[str, Mapping[str, tuple[Any, str]]]

    @classmethod
    def of(cls, components: Mapping[str, Any]) -> Snapshot:
        return cls(components, {name: _holders(module) for name, module in components.items()})

    def num_bytes(self) -> int:
        """At most: a quantised weight takes less."""
        return sum(_num_bytes(*holder) for holders in self.holders.values() for holder in holders.values())


def write_checkpoint(folder: Path, snapshot: Snapshot, *, go_on: Callable[[], bool] = lambda: True) -> bool:
    """Write `snapshot` as `folder`; False where it is there already, another worker writes it, or `go_on` said no.

    Raises OSError where the volume cannot be written to.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    sweep(folder.parent)
    partial = folder.with_name(f".{folder.name}.partial")
    if folder.exists() or not _made(partial):
        return False
    lock = _locked(partial)
    try:
        if folder.exists():  # another worker was done between the look and the lock
            return False
        for name, holders in snapshot.holders.items():
            for _ in _written(partial / name, snapshot.components[name], holders):
                if not go_on():
                    return False
        (partial / MANIFEST).write_text(json.dumps({"versions": _versions()}, indent=2))
        (partial / LOCK).unlink(missing_ok=True)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if lock is not None:
            os.close(lock)
    return True


def mark_used(folder: Path) -> None:
    """Keep the checkpoint at `folder` from being swept, as far as the volume can be written to."""
    try:
        os.utime(folder / MANIFEST)
    except OSError:
        return


def sweep(folder: Path) -> None:
    """Remove what killed writers left in `folder`, and checkpoints of other library versions that nobody uses."""
    now = time.time()
    for path in folder.iterdir() if folder.is_dir() else ():
        if not path.name.endswith(".partial"):
            if _is_outdated(path) and now - _last_change(path / MANIFEST) > UNUSED_S:
                _remove(path)
        elif now - _last_change(path) > ABANDONED_S:
            _remove(path)
        else:
            _remove_of_a_dead_writer(path)


# ------------------------------------------------------------------------------------------------- writing


def _holders(module: Any) -> dict[str, tuple[Any, str]]:
    """The module and attribute of every weight that a state dict has, tied weights once."""
    holders: dict[str, tuple[Any, str]] = {}
    seen: set[int] = set()
    for name, weight in module.state_dict(keep_vars=True).items():
        if id(weight) not in seen:
            seen.add(id(weight))
            path, _, attribute = name.rpartition(".")
            holders[name] = (module.get_submodule(path), attribute)
    return holders


def _written(folder: Path, component: Any, holders: Mapping[str, tuple[Any, str]]) -> Iterator[None]:
    """Write one component, yielding after each shard."""
    from safetensors.torch import save_file
    from torchao.prototype.safetensors.safetensors_support import flatten_tensor_state_dict

    folder.mkdir()
    is_of_diffusers = hasattr(component, "save_config")
    stem = "diffusion_pytorch_model" if is_of_diffusers else "model"
    shards = list(_shards(holders))
    weight_map: dict[str, str] = {}
    for index, names in enumerate(shards):
        file = f"{stem}-{index + 1:05}-of-{len(shards):05}.safetensors"
        state = {name: _on_the_host(*holders[name]) for name in names}
        flat, metadata = flatten_tensor_state_dict(state)
        # A reader merges the shards' metadata, of which the last one's list of names counts.
        metadata |= {"format": "pt", "tensor_names": json.dumps(list(holders))}
        save_file({name: tensor.contiguous() for name, tensor in flat.items()}, folder / file, metadata=metadata)
        weight_map |= dict.fromkeys(flat, file)
        del state, flat
        yield
    index_file = folder / f"{stem}.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    if is_of_diffusers:
        component.save_config(folder)
    else:
        component.config.save_pretrained(folder)


def _shards(holders: Mapping[str, tuple[Any, str]]) -> Iterator[list[str]]:
    """Names in the order of their modules, so that a shard is about SHARD_BYTES."""
    names: list[str] = []
    size = 0
    for name, holder in holders.items():
        names.append(name)
        size += _num_bytes(*holder)
        if size >= SHARD_BYTES:
            yield names
            names, size = [], 0
    if names:
        yield names


def _num_bytes(module: Any, attribute: str) -> int:
    """More than a quantised weight takes."""
    weight = getattr(module, attribute)
    return int(weight.numel() * weight.element_size())


def _on_the_host(module: Any, attribute: str) -> Any:
    """A copy of the weight itself: torchao flattens tensors and no parameters."""
    import torch

    weight = getattr(module, attribute).detach()
    copied = weight.to("cpu")
    return copied.data if type(copied) is torch.nn.Parameter else copied


# ------------------------------------------------------------------------------------------------- the lock


def _made(partial: Path) -> bool:
    try:
        partial.mkdir()
    except FileExistsError:
        return False
    return True


def _locked(partial: Path) -> int | None:
    """The descriptor that holds the lock until it is closed or the process ends; None where a volume has no locks."""
    try:
        descriptor = os.open(partial / LOCK, os.O_CREAT | os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.write(descriptor, _machine())  # once it is locked: until then nobody takes the lock for a dead writer's
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove_of_a_dead_writer(partial: Path) -> None:
    """Remove `partial` where its writer ran on this machine and has ended; of another machine a lock may tell nothing.

    The lock is held meanwhile, so that nobody else removes what a third one has begun.
    """
    try:
        with (partial / LOCK).open("rb+") as lock:
            if lock.read() == _machine() != b"":
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(lock.fileno()), (partial / LOCK).stat()):  # else another one has begun
                    _remove(partial)
    except OSError:  # held, or no lock there
        return


def _machine() -> bytes:
    """What containers of one host share and no other host has; empty where that is not known."""
    try:
        return BOOT_ID.read_bytes()
    except OSError:
        return b""


def _remove(path: Path) -> None:
    """Under another name first, so that nobody finds half of it."""
    gone = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        path.rename(gone)
    except OSError:
        return
    shutil.rmtree(gone, ignore_errors=True)


def _last_change(path: Path) -> float:
    """When something in `path` was written last; now where that is not known."""
    try:
        return max(inner.stat().st_mtime for inner in (path, *path.rglob("*")))
    except OSError:
        return time.time()


def _is_outdated(folder: Path) -> bool:
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
    except (OSError, ValueError):
        return folder.is_dir() and not (folder / MANIFEST).exists()  # an older version wrote no manifest
    return bool(manifest.get("versions") != _versions())


def _schemes(quantisations: Mapping[str, Quantisation]) -> list[tuple[str, str]]:
    return sorted((name, scheme) for name, scheme in quantisations.items() if scheme != "none")


def _versions() -> dict[str, str]:
    return {name: version_of(name) for name in KEY_PACKAGES}
