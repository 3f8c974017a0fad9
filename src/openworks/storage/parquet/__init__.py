"""Apache Parquet, by the extra `parquet`."""
