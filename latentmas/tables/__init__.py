"""Rows of data from files (JSONL, JSON, CSV, parquet, compressed or not) and from the Hub."""

from latentmas.tables._digest import digest_of
from latentmas.tables._files import read_table
from latentmas.tables._hub import download_table
from latentmas.tables._table import Row, Table

__all__ = ["Row", "Table", "digest_of", "download_table", "read_table"]
