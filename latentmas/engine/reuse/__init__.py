"""What is read once: what a batch begins with, and what an agent reads again in its next turn."""
