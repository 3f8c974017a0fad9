"""The embedding model: generated paraphrases, a small BERT, its exports."""
