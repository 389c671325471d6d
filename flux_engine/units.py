"""Units of memory and of file sizes, in bytes; imported from every room."""

from typing import Final

MIB: Final = 1024**2
GIB: Final = 1024**3
