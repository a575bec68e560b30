"""From a plan to a system: where backbones go, and how links start."""
