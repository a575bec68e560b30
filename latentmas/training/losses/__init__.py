"""What each loop minimises, one loss a file, and what the losses share."""
