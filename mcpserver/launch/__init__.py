"""`./start`: everything between a fresh clone and a gateway that has answered a call. Standard library only.

It runs under the system's Python, before anything is installed; what needs more runs in the virtual environment it makes.
"""
