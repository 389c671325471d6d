"""The worker for people: `python -m flux_engine`, and what `handler.py --test_input` takes and prints."""
