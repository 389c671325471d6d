"""What a file says of its origin to machines: made by a model, of what, and since when unchanged.

`marker.Marker` is the seam: what PROVENANCE asks for. `statement.Statement` is what is said, and `carriers.CARRIERS` is
how each format carries it. Marks are put into the finished file and change no pixel; jobs, stores and settings are
unknown here.
"""
