"""Commands that offer a team to other programs."""
