"""What a type checker sees in a trainer's own source that can only end in an exception."""
