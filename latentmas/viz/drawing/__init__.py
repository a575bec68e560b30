"""The drawing of a plan: laid out once, written as SVG, PNG, Mermaid or DOT."""
