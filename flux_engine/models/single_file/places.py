"""Where a model's file lies that a job or FLUX_MODEL names: always on the volume, never at an address.

mine.safetensors           in the folder `models` of the volume; `mine` does as well
owner/repo:file.gguf       where `builder/fetch_models.py` or the platform keeps that repository
civitai:VERSION_ID         in `models`, as `civitai-VERSION_ID.safetensors`
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from flux_engine.errors import ModelUnavailable
from flux_engine.models.weights import INDEX, candidate_folders

SUFFIXES: Final = (".safetensors", ".gguf")
PICKLES: Final = (".ckpt", ".pt", ".pth", ".bin", ".pkl")  # found, so that they are refused by what they are
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
HUB: Final = re.compile(
    r"(?P<repo>[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95})"
    r":(?P<file>[A-Za-z0-9_][A-Za-z0-9._/-]{0,199})"
)
CIVITAI: Final = re.compile(r"civitai:(?P<version>\d{1,12})", re.IGNORECASE)
FETCH: Final = "put it there with `python builder/fetch_models.py"


def find_file(name: str, volume: Path) -> Path | None:
    """The file that `name` means; None where `name` is none of the forms, or a plain word that no file has.

    Raises ModelUnavailable for a form that can only mean a file, where that is not on the volume.
    """
    if "://" in name:
        raise ModelUnavailable(
            "a model is not fetched during a job; " + FETCH + " URL`, then name the file that it prints"
        )
    is_hub, is_civitai = HUB.fullmatch(name), CIVITAI.fullmatch(name)
    if is_hub is not None and ".." not in name:
        places = [folder / is_hub["file"] for folder in candidate_folders(is_hub["repo"], volume)]
    elif is_civitai is not None:
        places = _with_suffixes(volume / "models", f"civitai-{is_civitai['version']}")
    elif NAME.fullmatch(name) is not None:
        places = [volume / "models" / name] if has_suffix(name) else _with_suffixes(volume / "models", name)
    else:
        return None
    found = next((place for place in places if _is_inside(place, volume)), None)
    if found is None and (is_hub is not None or is_civitai is not None):
        raise ModelUnavailable(f"`{name}` is not on this endpoint's volume; {FETCH} {name}`")
    if found is None and has_suffix(name):
        raise ModelUnavailable(f"the folder `models` of this endpoint's volume has no `{name}`; {FETCH} URL`")
    return found


def file_names(volume: Path) -> Iterator[str]:
    """By which names the files on the volume can be named, whatever is in them."""
    folder = volume / "models"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.endswith(SUFFIXES) and NAME.fullmatch(path.name) and path.is_file():
            yield path.name
        elif "--" in path.name and path.is_dir() and not (path / INDEX).exists():
            inside = sorted(inner for suffix in SUFFIXES for inner in path.rglob(f"*{suffix}"))
            yield from (f"{path.name.replace('--', '/', 1)}:{inner.relative_to(path).as_posix()}" for inner in inside)


def has_suffix(name: str) -> bool:
    """Whether `name` ends as a model's file does, or as one that is refused."""
    return name.lower().endswith((*SUFFIXES, *PICKLES))


def _with_suffixes(folder: Path, stem: str) -> list[Path]:
    return [folder / f"{stem}{suffix}" for suffix in SUFFIXES]


def _is_inside(place: Path, volume: Path) -> bool:
    """A file that no symbolic link leads out of the volume."""
    try:
        return place.is_file() and place.resolve().is_relative_to(volume.resolve())
    except OSError:
        return False
