"""What the `mcp` command is made of, a file for each of its nouns."""
