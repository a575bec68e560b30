"""Reads untrusted data within limits: JSON, YAML, safetensors, pickles. No torch."""

from latentmas.safe_data.files import check_name, check_plain_file, inside, read_bounded, read_json
from latentmas.safe_data.pickles import RANDOM_STATES, Archive, StoredTensor, scan_archive
from latentmas.safe_data.plain import (
    LARGEST_INT,
    compose_yaml,
    decode_text,
    parse_json,
    parse_yaml,
    read_limited,
)
from latentmas.safe_data.safetensors import FLOATS, Entry, Header, compare_header, read_header

__all__ = [
    "FLOATS",
    "LARGEST_INT",
    "RANDOM_STATES",
    "Archive",
    "Entry",
    "Header",
    "StoredTensor",
    "check_name",
    "check_plain_file",
    "compare_header",
    "compose_yaml",
    "decode_text",
    "inside",
    "parse_json",
    "parse_yaml",
    "read_bounded",
    "read_header",
    "read_json",
    "read_limited",
    "scan_archive",
]
