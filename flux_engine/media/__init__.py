"""Between pixels and files: pictures and videos encoded, pictures that clients send decoded and checked.

Knows nothing of jobs, stores or models.
"""
