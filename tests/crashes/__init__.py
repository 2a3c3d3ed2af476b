"""Killed at any moment: edits, backups, restores and changes of keys, hundreds of times, by `./start crashes`."""
