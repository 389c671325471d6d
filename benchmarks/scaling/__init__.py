"""How the system grows: what each part takes, measured, and what follows for 1 to 10,000 jobs a minute, simulated.

    measured     what a task costs gateway and Redis, and a result gateway and disk, on this machine
    growth       workers, waiting, GPU share and money by jobs a minute, and which part limits first

`python -m benchmarks.scaling` measures and prints the tables of docs/self-hosting.md.
"""
