"""What the user declares: frozen records, the builder, prompts. No torch."""

from latentmas.spec._base import Frozen, canonical_json, iter_invalid_values
from latentmas.spec._builder import AgentRef, EdgeRef, TextFunction, class_only
from latentmas.spec.agent import DEFAULT_LINK, TEXT, AgentSpec, EdgeSpec, LinkSpec, TextSourceSpec
from latentmas.spec.backbone import GIVEN, Backbone, DType, full_dtype
from latentmas.spec.files import LARGEST_PROMPT, YAML_SUFFIXES, prompt_file, write_graph_file
from latentmas.spec.graph import Graph
from latentmas.spec.graph_spec import GraphSpec
from latentmas.spec.load_options import refused_arguments
from latentmas.spec.lora import LoRA
from latentmas.spec.quantization import Quantization, QuantizationKind
from latentmas.spec.remote_code import ALLOW, code_wanted
from latentmas.spec.rows import JsonlFile, field_problem, read_jsonl

__all__ = [
    "ALLOW",
    "DEFAULT_LINK",
    "GIVEN",
    "LARGEST_PROMPT",
    "TEXT",
    "YAML_SUFFIXES",
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
    "LoRA",
    "Quantization",
    "QuantizationKind",
    "TextFunction",
    "TextSourceSpec",
    "canonical_json",
    "class_only",
    "code_wanted",
    "field_problem",
    "full_dtype",
    "iter_invalid_values",
    "prompt_file",
    "refused_arguments",
    "write_graph_file",
    "read_jsonl",
]
