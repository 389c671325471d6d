"""`upscale`: the finished picture, enlarged. How large it may become, and what the model does for it."""

from __future__ import annotations

from typing import Final

from flux_engine.errors import InvalidInput

MAX_RESULT_PIXELS: Final = 4096 * 4096
REDRAWN: Final = 0.2  # the strength at which tiles are drawn anew, where no upscaler is on the volume


def check_result(size: tuple[int, int], upscale: int | None, *, field: str = "upscale") -> None:
    """Raise InvalidInput where a picture of `size`, enlarged, has more pixels than a result may have."""
    factor = upscale or 1
    width, height = size[0] * factor, size[1] * factor
    if width * height > MAX_RESULT_PIXELS:
        raise InvalidInput(
            f"the result would be {width}x{height} pixels, and one has at most {MAX_RESULT_PIXELS}; lower `{field}` or "
            "begin with a smaller picture",
            field=field,
        )
