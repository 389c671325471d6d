"""The endpoints, one module a group. Each reads the request, calls one of the rooms and shapes the answer."""
