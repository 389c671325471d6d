"""Telling clients by HTTP that a task has changed: signed, retried, logged, and never in anybody's way.

    manager        Webhooks: a task's change becomes a delivery, deliveries are sent in the background
    target         the address and the events that a client asks for, checked
    delivery       one delivery: its body, its attempts, when to try again
    delivery_log   all of them in Redis, shared by the replicas
    signature      the headers of Standard Webhooks

The addresses are strangers' and are opened by `net/post.py` alone.
"""
