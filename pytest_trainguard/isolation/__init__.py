"""What a run may reach of the world: no network, no secrets, and of the project's files a copy that is thrown away."""
