"""Two questions that the flow transformer is asked while it learns where "left" is.

A landscape looks the same in every column, so nothing but the rotary positions against the text tokens tells a token
where it stands, and for thousands of steps nothing rewards it for finding out: without the probes a model whose
colours were right placed the disc at random (side 47 % after 9,000 steps). Asked for its column after each double
block, and at the end whether the named disc belongs in it, it learns both within 400 steps. The probes are thrown
away; no weight of theirs is shipped.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor, nn
from torch.nn import functional

from builder.flux_tiny.captions import WORDS_FOR
from builder.flux_tiny.landscapes import SKY_FREE
from builder.flux_tiny.scenes import SIDES, Scene

DISC_WEIGHT: Final = 0.5
HALF_WIDTH: Final = 0.13  # of the picture's width, on each side of the middle of where the disc may be
NAMED: Final = tuple(words.split()[-1] for side in SIDES for words in WORDS_FOR[side])  # left, right, middle, centre


class LayoutProbes(nn.Module):
    """Linear readings of the image tokens' states; call `loss` after each forward pass of `transformer`."""

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__()
        self._width = width = int(transformer.inner_dim)
        self.columns = nn.ModuleList(nn.Linear(width, 4) for _ in transformer.transformer_blocks)
        self.disc = nn.Linear(width, 1)
        self._states: dict[int, Tensor] = {}
        self._last: Tensor | None = None
        self._hooks = [transformer.norm_out.register_forward_hook(self._keep_last)]
        for index, block in enumerate(transformer.transformer_blocks):
            self._hooks.append(block.register_forward_hook(self._keep(index)))

    def loss(self, scenes: list[Scene], texts: list[str], *, columns: int, rows: int) -> Tensor:
        """How wrong the readings of the last forward pass are, for pictures of `rows` x `columns` tokens."""
        place = ((torch.arange(columns) + 0.5) / columns).repeat(rows)
        third = [place < 0.33, (place - 0.5).abs() < 0.17, place > 0.67]
        wanted = torch.stack([*(part.float() for part in third), place], dim=1)
        misplaced = [
            (probe(functional.layer_norm(self._states[i].float(), (self._width,))) - wanted).square().mean()
            for i, probe in enumerate(self.columns)
        ]
        is_named = torch.tensor([any(word in text.lower() for word in NAMED) for text in texts], dtype=torch.float32)
        disc = torch.stack([_disc_place(scene, columns, rows) for scene in scenes])
        assert self._last is not None
        read = self.disc(self._last.float())[..., 0]
        missed = functional.binary_cross_entropy_with_logits(read, disc, reduction="none").mean(dim=1)
        return torch.stack(misplaced).sum() + DISC_WEIGHT * (missed * is_named).sum() / is_named.sum().clamp(min=1)

    def detach(self) -> None:
        """Take the hooks off again."""
        for hook in self._hooks:
            hook.remove()

    def _keep(self, index: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: tuple[Tensor, Tensor]) -> None:
            self._states[index] = output[1]

        return hook

    def _keep_last(self, _module: nn.Module, _inputs: Any, output: Tensor) -> None:
        self._last = output


def _disc_place(scene: Scene, columns: int, rows: int) -> Tensor:
    """1 for the tokens of the sky that lie in the scene's side, 0 for the others; (rows x columns,)."""
    low, high = SIDES[scene.side]
    place = (torch.arange(columns) + 0.5) / columns
    row = ((place - (low + high) / 2).abs() < HALF_WIDTH).float()
    picture = row[None].repeat(rows, 1)
    picture[int(rows * SKY_FREE) :] = 0
    return picture.flatten()
