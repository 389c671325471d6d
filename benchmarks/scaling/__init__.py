"""How the system grows: what each part takes, measured, and what follows for 1 to 10,000 jobs a minute, simulated.

    measured     what a task costs gateway and Redis, and a result gateway and disk, on this machine
    arrivals     when jobs come: at random, with bursts
    workers      the two ways of having workers: started by demand and paid by the second, or so many cards of one's own

`python -m benchmarks.scaling` measures and prints the tables of docs/self-hosting.md.
"""
