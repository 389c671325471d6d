"""What a job names and does not hold: LoRAs and pictures, fetched, checked, and known by their content.

In come the sources that a job names (a URL, a data URI, base64, a hub id, a name on the volume), out come JobInputs:
decoded pictures, and LoRA files on the volume with the hash of their bytes. `fetcher.InputFetcher` is the way in.
Addresses are opened by net/ alone. torch is not needed.
"""
