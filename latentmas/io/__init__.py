"""Teams on disk: safetensors and JSON, never a backbone, never a pickle."""

from latentmas.io.load import load_link_weights, load_system
from latentmas.io.save import save_system

__all__ = ["load_link_weights", "load_system", "save_system"]
