"""A choice that a library or the hardware rejects is noted rather than raised, so that the next one can be tried."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Final

# What libraries raise where a package, a kernel or the hardware lacks a feature.
RECOVERABLE: Final = (
    ImportError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    NotImplementedError,
    AssertionError,
)
OUT_OF_MEMORY: Final = ("out of memory", "_status_alloc_failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """A choice that could not be had, and why."""

    choice: str
    wanted: str
    why: str


class FallbackNoted:
    """A context: a recoverable error ends its block and is added to `fallbacks`; the code after the block goes on.

    Running out of memory and losing the device pass through, although torch derives both from RuntimeError.
    """

    def __init__(self, fallbacks: list[Fallback], *, choice: str, wanted: str) -> None:
        self._fallbacks = fallbacks
        self._choice = choice
        self._wanted = wanted

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        import torch

        if not isinstance(error, RECOVERABLE) or isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
            return False
        self._fallbacks.append(Fallback(choice=self._choice, wanted=self._wanted, why=_in_one_line(error)))
        return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether device memory or pinned host memory ran out. The driver, Triton, cuBLAS and cuDNN raise a plain
    RuntimeError or an AcceleratorError for it, which only the text tells from others."""
    import torch

    text = str(error).casefold()
    says_so = isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY)
    return says_so or isinstance(error, torch.OutOfMemoryError)


def _in_one_line(error: BaseException) -> str:
    """Compilers put the cause on the second line."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
