"""Teams in other evaluation harnesses: one file for each harness, each behind an extra."""
