"""Ways to feed a backbone piece by piece, one a file."""
