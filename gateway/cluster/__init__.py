"""What the workers of all machines know of one another, through Redis: who lives, who has what, how much is counted in all."""
