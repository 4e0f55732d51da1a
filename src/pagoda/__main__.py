"""``python -m pagoda``: the command line."""

from pagoda.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
