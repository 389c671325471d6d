"""JSON Schema of the jobs that a worker takes, derived from the declarations by which they are parsed.

`jobs.job_schema` is the way in. In come a kind of job and a model's limits, out comes a schema (2020-12).
"""
