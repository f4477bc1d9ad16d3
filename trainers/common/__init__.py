"""What the training programs have in common."""
