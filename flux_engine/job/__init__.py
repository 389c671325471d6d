"""The job contract: what a client may send, and the frozen job that results from it.

`parse.parse_job` takes the platform's raw dictionary and returns an ImageJob or a VideoJob in which every parameter has
its effective value, or raises InvalidInput that names the field. Pure: nothing here fetches, decodes, loads or waits.
Of the rest of the package only errors.py may be imported.
"""
