"""One fault at one call of one job, at each call in turn, and what has to hold afterwards.

`plan` counts calls and says which one fails, `seams` stand between the worker and what it calls, `site` is a worker
with all of them, `jobs` are what it is given, and `claims` look at it afterwards.
"""
