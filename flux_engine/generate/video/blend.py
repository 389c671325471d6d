"""Between two noises and between two prompts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import Tensor

    from flux_engine.generate.text import Embeddings

PARALLEL: Final = 1e-4  # the sine below which two directions count as one


def slerp(start: Tensor, end: Tensor, share: float) -> Tensor:
    """`share` of the way along the arc from `start` to `end`, each taken as one vector.

    A straight line between two noises of n values would pass sqrt(1/2) of their length from the origin, and a model
    that was trained on full noise would paint it flat; on the arc the length stays. Same shape and dtype as `start`.
    """
    import torch

    a, b = start.float(), end.float()
    cosine = torch.sum(a * b) / (a.norm() * b.norm())
    angle = torch.acos(cosine.clamp(-1, 1))
    sine = torch.sin(angle)
    if float(sine) < PARALLEL:
        return torch.lerp(a, b, share).to(start.dtype)
    blended = (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / sine
    return blended.to(start.dtype)


def blended(start: Embeddings, end: Embeddings, share: float) -> Embeddings:
    """Each of the embeddings of two prompts, linearly, in float32."""
    if share == 0 or start is end:
        return start
    return {name: start[name].float().lerp(end[name].float(), share).to(start[name].dtype) for name in start}
