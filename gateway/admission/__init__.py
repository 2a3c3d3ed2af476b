"""How much may happen at once and in a minute: by key, by remote, in this worker and in all."""
