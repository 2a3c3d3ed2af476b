"""Access tokens for remotes: where they come from, where they are kept, and how every process has the same one.

- `grant` is values and decisions: what a token is asked for with, what an answer means, when one is due;
- `endpoint` speaks to authorization servers, `vault` encrypts, `store` is the table and its lease;
- `credential` is one remote's token in this process, `credentials` has one for each remote.
- `login` gets the first one, with a person.
"""
