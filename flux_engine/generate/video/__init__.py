"""A video job as a stream of frames, encoded while the next ones are made.

`generator.VideoGenerator` makes frames, `film.film` sends them through the encoder. Memory does not grow with their
number.
"""
