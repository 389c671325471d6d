"""The comparison with the plain worker, in sections: `make bench`, or one by `python -m benchmarks.suite NAME`.

    contenders   ours and the plain worker, as commands on the stand-in for the platform
    samples      figures of two runs in alternation: medians, spread, ratios
    record       benchmarks/results.json, written section by section
    one module a section, each with `measure() -> dict`

`python -m builder.docs` makes docs/performance.md and its plots of the record.
"""
