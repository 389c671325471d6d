"""Finished files on their way to the client: stored in a bucket or a folder, delivered as links or inline, measured.

`store.ResultStore` is the seam: BucketStore, FolderStore. boto3 is imported in bucket_client.py alone.
"""
