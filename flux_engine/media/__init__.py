"""Between pixels and files: encodes pictures and videos, decodes and checks the pictures that clients send.

Of jobs only the formats' names are known here; stores and models are not.
"""
