"""What is measured, logged and shown while links learn."""
