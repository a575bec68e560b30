"""Manifests of runs: written, read and run again."""
