"""What commands that train share."""
