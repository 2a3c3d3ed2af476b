#!/usr/bin/env python3
"""Django's command line. Every operation of the gateway is a command here; `bin/` holds a launcher for each."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mcpserver.settings")
    from mcpserver.lib import command

    command.main(sys.argv)


if __name__ == "__main__":
    main()
