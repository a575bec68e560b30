"""A team as a service: the playground in the browser, and the MCP server."""
