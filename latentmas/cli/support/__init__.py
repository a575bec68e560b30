"""What commands share: options, console, teams, rows. Each file of `cli` beside it is a command."""
