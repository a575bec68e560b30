"""A folder that one process writes and others read at the same time."""
