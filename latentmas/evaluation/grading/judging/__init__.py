"""A language model as a judge: its prompt, its endpoint, its log."""
