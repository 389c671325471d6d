"""Results by fingerprint and jobs by id, in Redis: no picture is made twice.

`manager.CacheManager` is the way in, and `flight` what it takes one job through. Holds object keys, never URLs and
never pictures. A server that does not answer is no cache, never a failed job. redis is imported here alone.
"""
