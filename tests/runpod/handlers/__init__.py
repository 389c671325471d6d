"""Small real handlers that the stand-in itself is tested with."""
