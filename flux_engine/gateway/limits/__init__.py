"""How much a user may ask for, and in what order tasks of all users reach the queue.

manager           LimitsManager: requests, and work that is reserved, settled or given back
policy            quotas, and how clients are told of them
requests          requests by the `limits` library
work, memory      work in moving windows, in Redis and in this process
line              tasks that wait, fair between users
"""
