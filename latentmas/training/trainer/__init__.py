"""What all trainers are made of: the loop, checkpoints, interruptions, and several processes."""
