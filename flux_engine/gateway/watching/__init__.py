"""What an operator sees of the gateway: one id a request, one trace from request to worker, numbers for Prometheus.

    middleware    every request: its id, its times, its line in the log, its numbers
    timing        what a request spent its time on, told in Server-Timing
    metrics       the numbers, as /metrics has them
    tracing       OpenTelemetry's traces

No prompt, key, picture or user's name is in any of them.
"""
