"""What the user declares: frozen records, the builder, prompts. No torch."""

from latentmas.spec._base import Frozen, canonical_json, oddities
from latentmas.spec._builder import AgentRef, EdgeRef, TextFunction, class_only
from latentmas.spec._files import prompt_file
from latentmas.spec._writing import (
    WriteError,
    check_writable,
    replacing_file,
    write_atomically,
    write_error,
    write_text_atomically,
)
from latentmas.spec.agent import TEXT, AgentSpec, EdgeSpec, LinkSpec, TextSourceSpec
from latentmas.spec.backbone import Backbone, DType, full_dtype
from latentmas.spec.graph import Graph
from latentmas.spec.graph_spec import GraphSpec
from latentmas.spec.rows import JsonlFile, field_problem, read_jsonl

__all__ = [
    "TEXT",
    "AgentRef",
    "AgentSpec",
    "Backbone",
    "DType",
    "EdgeRef",
    "EdgeSpec",
    "Frozen",
    "Graph",
    "GraphSpec",
    "JsonlFile",
    "LinkSpec",
    "TextFunction",
    "TextSourceSpec",
    "WriteError",
    "canonical_json",
    "check_writable",
    "class_only",
    "field_problem",
    "full_dtype",
    "oddities",
    "prompt_file",
    "read_jsonl",
    "replacing_file",
    "write_atomically",
    "write_error",
    "write_text_atomically",
]
