"""A look at a picture that is still being made: the flow's estimate of its end, decoded small.

From two successive latents, x0 at noise level s0 and x1 at s1, the velocity is v = (x1 - x0) / (s1 - s0) and the
end is x1 - s1 v. It equals the final latents at the last step, and is 10 % off where the raw latents are 40 % off
(docs/facts.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from flux_engine.media.encode import preview_data_uri

if TYPE_CHECKING:
    from torch import Tensor

PREVIEW_LATENT_SIDE: Final = 32  # 256 pixels


class FlowPreview:
    """Follows one image's latents, packed as (1, tokens, channels x 4) and `width` x `height` pixels in the end.

    Its previews carry the packet `xmp`.
    """

    def __init__(self, *, width: int, height: int, xmp: bytes = b"") -> None:
        self._width, self._height = width, height
        self._xmp = xmp
        self._last: tuple[Tensor, float] | None = None

    def follow(self, pipeline: Any, latents: Tensor, step: int, *, is_wanted: bool) -> str | None:
        """Take note of the latents after `step` (from 0); returns a data URI where one is wanted and possible."""
        first = pipeline.scheduler.begin_index or 0  # image-to-image begins part of the way down
        sigma = float(pipeline.scheduler.sigmas[first + step + 1])
        before, self._last = self._last, (latents, sigma)
        if before is None or not is_wanted:
            return None
        velocity = (latents - before[0]) / (sigma - before[1])
        return self._decoded(pipeline, latents - sigma * velocity)

    def _decoded(self, pipeline: Any, packed: Tensor) -> str:
        import torch

        vae = pipeline.vae
        with torch.no_grad():
            latents = self._unpacked(pipeline, packed)
            scale = min(1.0, PREVIEW_LATENT_SIDE / max(latents.shape[-2:]))
            if scale < 1:
                latents = torch.nn.functional.interpolate(latents.float(), scale_factor=scale, mode="area")
            decoded = vae.decode(latents.to(vae.dtype), return_dict=False)[0]
        picture = pipeline.image_processor.postprocess(decoded, output_type="pil")[0]
        return preview_data_uri(picture, xmp=self._xmp)

    def _unpacked(self, pipeline: Any, packed: Tensor) -> Tensor:
        """Latents as the VAE decodes them, (1, channels, height / 8, width / 8), in FLUX.1's or FLUX.2's layout."""
        vae, side = pipeline.vae, 2 * pipeline.vae_scale_factor
        if hasattr(pipeline, "_unpack_latents"):
            latents: Tensor = pipeline._unpack_latents(packed, self._height, self._width, pipeline.vae_scale_factor)
            scaled: Tensor = latents / vae.config.scaling_factor + vae.config.shift_factor
            return scaled
        rows, columns = self._height // side, self._width // side
        patches = packed.permute(0, 2, 1).reshape(1, -1, rows, columns)
        norm = vae.bn
        deviation = (norm.running_var + vae.config.batch_norm_eps).sqrt()
        patches = patches * deviation.view(1, -1, 1, 1) + norm.running_mean.view(1, -1, 1, 1)
        unpatched: Tensor = pipeline._unpatchify_latents(patches)
        return unpatched
