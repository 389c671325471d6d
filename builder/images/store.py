"""Buildah over a folder of its own: it neither sees nor touches the machine's other images."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DRIVER: Final = "overlay"
ISOLATION: Final = ("--isolation", "chroot")
SHELL: Final = "/bin/sh"
AROUND: Final = re.compile(r"^(\|\d+ .*?)?/bin/sh -c (#\(nop\) )?")
DIGEST: Final = re.compile(r"\b(dir|file|multi):[0-9a-f]{64}")


class BuildFailed(Exception):
    """The text is the end of what buildah said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    instruction: str
    size_bytes: int


class Store:
    """Images and containers under `folder`. Commands raise BuildFailed.

    A container is an overlay over its image's layers: made in a second, where a copy of 2 GB takes minutes on a busy
    machine. What is mounted is written down under `state`, so whoever mounts in a namespace has a state of its own.
    """

    def __init__(self, folder: Path, *, state: Path | None = None) -> None:
        self.folder: Final = folder
        self._storage = folder / DRIVER
        self._state = state or folder / "state"
        folder.mkdir(parents=True, exist_ok=True)

    def buildah(self, *arguments: str, log: Path | None = None) -> str:
        """What it wrote; with `log`, all of it goes there as it comes."""
        command = self.command(*arguments)
        if log is None:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode != 0:
                raise BuildFailed(f"{' '.join(arguments[:2])}: {done.stderr.strip()[-2000:]}")
            return done.stdout.strip()
        with log.open("ab") as output:
            status = subprocess.run(command, stdout=output, stderr=output, check=False).returncode
        if status != 0:
            raise BuildFailed(f"{' '.join(arguments[:2])}: {log.read_text(errors='replace')[-2000:]}")
        return ""

    def command(self, *arguments: str) -> list[str]:
        own = ["--root", str(self._storage), "--runroot", str(self._state), "--storage-driver", DRIVER]
        return ["buildah", *own, *arguments]

    def has_image(self, name: str) -> bool:
        asked = self.command("inspect", "--type", "image", name)
        return subprocess.run(asked, capture_output=True, check=False).returncode == 0

    def container(self, image: str) -> str:
        """A new container of `image`; its name."""
        return self.buildah("from", "--pull-never", image)

    def mounted(self, container: str) -> Path:
        """Where the files of `container` are, until it is removed."""
        return Path(self.buildah("mount", container))

    def remove(self, container: str) -> None:
        self.buildah("rm", container)

    def remove_all(self) -> None:
        """Every container, those of runs that were killed too."""
        self.buildah("rm", "--all")

    def run_command(
        self,
        container: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        mounts: Mapping[Path, str] | None = None,
        hosts: Path | None = None,
    ) -> list[str]:
        """What starts `command` in `container`; without `user` it is the image's own, without `hosts` buildah's own."""
        options = [f"--env={name}={value}" for name, value in (environment or {}).items()]
        options += [f"--volume={outside}:{inside}" for outside, inside in (mounts or {}).items()]
        if hosts is not None:  # without the first, buildah mounts a file of its own over or under this one
            options += ["--no-hosts", f"--volume={hosts}:/etc/hosts:ro"]
        if user is not None:
            options.append(f"--user={user}")
        return self.command("run", *ISOLATION, *options, container, "--", *command)

    def layers(self, image: str) -> list[Layer]:
        """The layers that hold something, the lowest first."""
        held = json.loads(self.buildah("inspect", "--type", "image", image))
        image_config = held["OCIv1"]
        sizes = self._sizes()
        made = [step for step in image_config["history"] if not step.get("empty_layer")]
        digests = image_config["rootfs"]["diff_ids"]
        return [
            Layer(instruction=_instruction(step), size_bytes=sizes.get(digest, 0))
            for step, digest in zip(made, digests, strict=True)
        ]

    def _sizes(self) -> dict[str, int]:
        layers: list[dict[str, Any]] = json.loads((self._storage / f"{DRIVER}-layers" / "layers.json").read_text())
        return {layer["diff-digest"]: layer["diff-size"] for layer in layers if "diff-digest" in layer}


def _instruction(step: Mapping[str, Any]) -> str:
    """As the Dockerfile has it, without what buildah writes around it."""
    text = " ".join(str(step.get("created_by", "")).split())
    if text == SHELL:
        return "base"
    return DIGEST.sub(r"\1", AROUND.sub("", text))
