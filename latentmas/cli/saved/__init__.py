"""Commands on saved teams, and on what is imported as one."""
