"""The embedded vector index: rows in SQLite, vectors in a file, codes to search by in faiss."""
