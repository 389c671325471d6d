"""The only doors to an address that a stranger named: which addresses are public, and a bounded download
from one or post to one.

Every URL of a client, and every webhook, is opened through here, and a test holds that. urls.py keeps a URL as written,
content.py names what arrived in place of a file. Nothing here knows of jobs, pictures or LoRAs.
"""
