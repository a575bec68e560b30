"""The model card of a saved team."""
