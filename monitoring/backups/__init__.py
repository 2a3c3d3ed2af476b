"""Backups: what could not be made again, in one file that tells whether it is whole.

`document` what such a file is, `folder` where they lie, `sections` what is in one, `saving` makes them, `restoring` brings one
back. A backup holds the configuration, the keys (their hashes), which tools were approved, and the settings to compare. It holds
no secret of the machine (SECRET_KEY, DATABASE_URL) and no token of a remote: a refresh token is good once, and an old one that is
used again makes its issuer revoke the whole login.
"""
