"""A small built-in experiment: three small agents that can only answer together, over rounds."""
