"""The only doors to an address that a stranger named: which addresses are public, and a bounded download from one.

Whoever must open a client's URL comes through here, and a test keeps it so. Knows nothing of jobs, pictures or LoRAs.
"""
