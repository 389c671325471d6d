"""Every call that the gateway makes to Redis, to its queue and to its store, made to fail once.

calls       the calls, counted and broken
case        one user's requests, and what has to hold once all is quiet
scenarios   requests and what their clients do next, and steps in the background
"""
