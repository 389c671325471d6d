"""The sections of `python -m benchmarks.gpu`, each with a budget of seconds. In come a Bench and nothing else.

`bench.py` runs them and keeps what they find, `scale.py` says which model is built and how much is measured of it,
`random_flux.py` builds it, `clock.py` times its pictures, `report.py` makes the table and the constants implied.
"""
