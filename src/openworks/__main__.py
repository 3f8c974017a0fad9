"""`python -m openworks` is `openworks`."""

from __future__ import annotations

from openworks.app.cli.main import main

if __name__ == "__main__":
    main()
