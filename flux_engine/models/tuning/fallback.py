"""What a library or the hardware refuses to do, noted rather than raised, so that the next choice can be tried."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Final

# What libraries raise when a package, a kernel or the hardware does not do a thing.
REFUSALS: Final = (
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
class Refusal:
    """One thing that was wanted and refused, and why."""

    choice: str
    wanted: str
    why: str


class RefusalNoted:
    """A context: a refusal within ends its block and is added to `refused`; what follows the block goes on.

    Running out of memory and losing the device are no refusals, although torch derives both from RuntimeError: they
    pass through.
    """

    def __init__(self, refused: list[Refusal], *, choice: str, wanted: str) -> None:
        self._refused = refused
        self._choice = choice
        self._wanted = wanted

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        import torch

        if not isinstance(error, REFUSALS) or isinstance(error, torch.AcceleratorError) or is_out_of_memory(error):
            return False
        self._refused.append(Refusal(choice=self._choice, wanted=self._wanted, why=_in_one_line(error)))
        return True


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, of the device or of pinned memory beside it: torch's own error, or a plain RuntimeError
    or an AcceleratorError of the driver, Triton, cuBLAS or cuDNN, which only their texts tell from others."""
    import torch

    said = str(error).casefold()
    is_in_its_text = isinstance(error, RuntimeError) and any(words in said for words in OUT_OF_MEMORY)
    return is_in_its_text or isinstance(error, torch.OutOfMemoryError)


def _in_one_line(error: BaseException) -> str:
    """Compilers put what happened on the second line."""
    text = " ".join(str(error).split("\n\n")[0].split())
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__
