"""Results by fingerprint and jobs by id, in Redis: no picture is made twice.

`manager.CacheManager` is the way in; `flight.Flight` is one job's way through. The cache holds object keys, never URLs
or pictures. A job whose cache does not answer goes on without it.
"""
