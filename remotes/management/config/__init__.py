"""What the `mcpconfig` command is made of: looking at the configuration, changing it, exchanging it with other programs."""
