"""The job contract: what a client may send, and the frozen job that comes of it.

In comes the platform's raw dictionary, out comes an ImageJob or a VideoJob in which every parameter has its effective
value, or InvalidInput that names the field. Pure: nothing here fetches, decodes, loads or waits, and nothing of the
rest of the package but errors.py is imported. `parse.parse_job` is the way in.
"""
