"""Geometry and words of the drawings: layers, routes, labels, colours."""
