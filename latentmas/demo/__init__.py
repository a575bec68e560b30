"""A tiny embedded experiment: three small agents that answer only together, in rounds."""
