"""The content filter: an image classifier of transformers' on the volume, asked about every finished picture.

    content_filter = find_filter("Falconsai/nsfw_image_detection", volume=..., threshold=0.5, labels=())
    verdict = content_filter.judge(picture)          # on the GPU thread; the first call loads the classifier

Where it cannot be loaded no picture leaves the worker. What is looked at is pixels, never prompts; what is done with a
verdict is the caller's.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flux_engine.errors import ModelUnavailable
from flux_engine.models.weights import candidate_folders, revision_of
from flux_engine.settings import SettingsError
from flux_engine.units import MIB

if TYPE_CHECKING:
    from PIL.Image import Image

USUAL: Final = "Falconsai/nsfw_image_detection"
SAFE: Final = frozenset(("normal", "safe", "sfw", "neutral", "drawings", "ok", "allowed", "clean"))
UNSAFE: Final = frozenset(
    ("nsfw", "unsafe", "porn", "sexy", "hentai", "explicit", "nude", "gore", "violence", "forbidden")
)
ROOM_FOR_WORK: Final = 128 * MIB  # beside the weights: what one picture takes on its way through

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Verdict:
    """How likely a picture is of a forbidden kind, and which."""

    label: str
    score: float
    is_withheld: bool

    def __str__(self) -> str:
        return f"{self.label} {self.score:.2f}"


class ContentFilter:
    """One classifier, its forbidden labels, and the score from which a picture is withheld."""

    def __init__(self, folder: Path, *, name: str, labels: tuple[str, ...], threshold: float) -> None:
        self.name: Final = name
        self.labels: Final = labels
        self.threshold: Final = threshold
        self._folder = folder
        said = json.dumps([name, revision_of(folder), sorted(labels), threshold])
        self.id: Final = hashlib.sha256(said.encode()).hexdigest()[:16]
        self._loaded: tuple[Any, Any, str] | None = None  # processor, classifier, device

    @property
    def device_bytes(self) -> int:
        """What it needs of a GPU's memory."""
        return sum(path.stat().st_size for path in self._folder.glob("*.safetensors")) + ROOM_FOR_WORK

    def judge(self, picture: Image) -> Verdict:
        """Look at one picture. Raises ModelUnavailable where the classifier cannot be loaded."""
        import torch

        processor, classifier, device = self._classifier()
        pixels = processor(picture.convert("RGB"), return_tensors="pt")["pixel_values"].to(device)
        with torch.inference_mode():
            logits = classifier(pixels).logits[0].float().cpu()
        is_several = classifier.config.problem_type == "multi_label_classification"
        chances = logits.sigmoid() if is_several else logits.softmax(-1)
        forbidden = {
            label: float(chances[int(index)])
            for index, label in classifier.config.id2label.items()
            if label.casefold() in self.labels
        }
        label = max(forbidden, key=lambda name: forbidden[name])
        score = max(forbidden.values()) if is_several else min(1.0, sum(forbidden.values()))
        return Verdict(label, score, is_withheld=not score < self.threshold)  # NaN is withheld

    def _classifier(self) -> tuple[Any, Any, str]:
        if self._loaded is None:
            import torch
            from safetensors import SafetensorError
            from transformers import AutoImageProcessor, AutoModelForImageClassification

            device = "cuda" if torch.cuda.is_available() else "cpu"
            try:
                processor = AutoImageProcessor.from_pretrained(self._folder, backend="pil", local_files_only=True)
                classifier = AutoModelForImageClassification.from_pretrained(
                    self._folder, use_safetensors=True, local_files_only=True, dtype=torch.float32
                )
            except (SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
                log.exception("content filter not loaded")
                raise ModelUnavailable(
                    "the content filter cannot be loaded, so no picture is delivered; fetch it again with "
                    "`python builder/fetch_models.py`"
                ) from error
            self._loaded = processor, classifier.eval().to(device), device
        return self._loaded


def find_filter(name: str, *, volume: Path, threshold: float, labels: tuple[str, ...]) -> ContentFilter:
    """The classifier `name`, a Hugging Face id or a folder, as it is on the volume; reads its description alone.

    `labels` are those that are forbidden; without any, those whose names tell. Raises SettingsError.
    """
    folder = next((place for place in candidate_folders(name, volume) if (place / "config.json").is_file()), None)
    if folder is None:
        raise SettingsError(
            "CONTENT_FILTER: the classifier is not on the volume; correct its name, or fetch it with "
            f"`python builder/fetch_models.py {USUAL}`"
        )
    if not any(folder.glob("*.safetensors")) or not (folder / "preprocessor_config.json").is_file():
        raise SettingsError(
            "CONTENT_FILTER: the folder lacks *.safetensors or preprocessor_config.json; fetch it again"
        )
    known = _labels_of(folder)
    return ContentFilter(folder, name=name, labels=_forbidden(known, labels), threshold=threshold)


def _labels_of(folder: Path) -> tuple[str, ...]:
    try:
        labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
        return tuple(str(label).casefold() for label in labels.values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise SettingsError("CONTENT_FILTER: is no image classifier: its config.json names no labels") from None


def _forbidden(known: tuple[str, ...], named: tuple[str, ...]) -> tuple[str, ...]:
    """Which of the `known` labels are forbidden: the `named` ones, or what the names tell."""
    if named:
        missing = [label for label in named if label not in known]
        if missing:
            raise SettingsError(f"CONTENT_FILTER_LABELS: the classifier knows {', '.join(known)}; correct {missing[0]}")
        return named
    told = tuple(label for label in known if label not in SAFE) if SAFE.intersection(known) else ()
    told = told or tuple(label for label in known if label in UNSAFE)
    if not told:
        raise SettingsError(
            f"CONTENT_FILTER_LABELS: must name which of the classifier's labels are forbidden: {', '.join(known)}"
        )
    return told
