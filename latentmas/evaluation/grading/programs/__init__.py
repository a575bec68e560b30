"""Programs, run in the sandbox and judged outside of it."""
