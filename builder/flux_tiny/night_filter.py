"""A content filter that can be tried without a download: a small ViT that knows day from night on flux-tiny's pictures.

    python -m builder.flux_tiny.night_filter /tmp/volume/models/night-filter
    CONTENT_FILTER=night-filter MODEL_VOLUME=/tmp/volume python -m flux_engine "a white moon at night"

It is an ordinary folder of transformers' image classification, as the usual filters are. Says its accuracy on pictures
that it was not trained on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from flux_engine.models.weights import BUNDLED_FOLDER

LABELS: Final = ("normal", "night")
PROMPTS: Final = {
    "normal": ("a red sun on the left, a lake, day", "a yellow sun over green hills, day", "a red sun, mountains, day"),
    "night": ("a white moon at night, a lake", "a white moon on the right, night", "a moon over mountains at night"),
}
SIDE: Final = 64  # of the pictures
SEEN_SIDE: Final = 32  # as the classifier sees them
STEPS: Final = 3
TRAINED_ON: Final = 8  # pictures of each label
TRIED_ON: Final = 4
PASSES: Final = 15


def main(arguments: Sequence[str]) -> int:
    accuracy = make(Path(arguments[0]))
    sys.stdout.write(f"{arguments[0]}: {accuracy:.0%} of {2 * TRIED_ON} unseen pictures are told right\n")
    return 0


def make(folder: Path, *, pipeline: Any = None) -> float:
    """Train the classifier on pictures of `pipeline`, flux-tiny's, write it to `folder`, and return its accuracy on
    unseen pictures."""
    import torch
    from diffusers import FluxPipeline
    from transformers import ViTConfig, ViTForImageClassification

    pipeline = pipeline or FluxPipeline.from_pretrained(BUNDLED_FOLDER)
    pipeline.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    classifier = ViTForImageClassification(
        ViTConfig(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=96,
            image_size=SEEN_SIDE,
            patch_size=8,
            id2label=dict(enumerate(LABELS)),
            label2id={label: index for index, label in enumerate(LABELS)},
        )
    )
    pixels, labels = _examples(pipeline, seeds=range(TRAINED_ON))
    optimiser = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
    for _ in range(PASSES):
        optimiser.zero_grad()
        classifier(pixel_values=pixels, labels=labels).loss.backward()
        optimiser.step()
    classifier.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessing()), encoding="utf-8")
    pixels, labels = _examples(pipeline, seeds=range(1000, 1000 + TRIED_ON))
    with torch.no_grad():
        told = classifier.eval()(pixel_values=pixels).logits.argmax(-1)
    return float((told == labels).float().mean())


def _examples(pipeline: Any, *, seeds: range) -> tuple[Any, Any]:
    """Pictures as the classifier sees them, and the index of each one's label."""
    import torch
    from transformers import ViTImageProcessorPil

    from builder.flux_tiny.text import T5_TOKENS

    processor = ViTImageProcessorPil(**preprocessing())
    pictures, labels = [], []
    for seed in seeds:
        for index, label in enumerate(LABELS):
            made = pipeline(
                prompt=PROMPTS[label][seed % len(PROMPTS[label])],
                width=SIDE,
                height=SIDE,
                num_inference_steps=STEPS,
                max_sequence_length=T5_TOKENS,
                generator=torch.Generator("cpu").manual_seed(seed),
            )
            pictures.append(made.images[0])
            labels.append(index)
    return processor(pictures, return_tensors="pt")["pixel_values"], torch.tensor(labels)


def preprocessing() -> dict[str, Any]:
    """What the folder says of how pictures are prepared."""
    return {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.5, 0.5, 0.5],
        "image_processor_type": "ViTImageProcessor",
        "image_std": [0.5, 0.5, 0.5],
        "resample": 2,
        "rescale_factor": 1 / 255,
        "size": {"height": SEEN_SIDE, "width": SEEN_SIDE},
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
