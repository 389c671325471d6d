"""The whole system as processes that are killed at random moments, and what must hold all the same.

storm       one run: kills, and the count at its end
system      the processes: Redis, gateways, the local platform or Celery workers
client      one user's wish for one picture, watched to its end
pictures    what a worker that nobody disturbs makes of the same wishes
"""
