"""Telling clients by HTTP that a task has changed: signed, retried, logged."""
