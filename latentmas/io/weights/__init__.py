"""Weights of links and adapters, as files."""
