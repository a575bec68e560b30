"""Keys and values of what a backbone has read, growing or of fixed size, and masks over them."""
