"""What a job names but does not hold: LoRAs and pictures, fetched, checked and identified by their content.

`fetcher.InputFetcher` takes a job, whose sources may be a URL, a data URI, base64, a hub id or a name on the volume,
and returns JobInputs: decoded pictures, and LoRA files on the volume with the hash of their bytes. Only net/ opens
addresses. torch is not needed.
"""
