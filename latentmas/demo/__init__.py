"""A tiny embedded experiment: three small agents that can only answer together, and only in rounds."""
