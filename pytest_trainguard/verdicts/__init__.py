"""What a good trainer does: the verdict kinds, what a message must name, the exceptions that carry a verdict."""
