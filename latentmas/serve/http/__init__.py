"""The HTTP side of a server; it needs the extra `serve`."""
