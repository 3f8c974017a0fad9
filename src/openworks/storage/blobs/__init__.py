"""Blobs through obstore: a local folder by default, object storage by URL."""
