"""Configurations of other programs, in and out. Values only: nothing here reads a file, contacts anything or runs anything."""
