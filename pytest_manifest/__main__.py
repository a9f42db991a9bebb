"""Run the command ``manifest`` as ``python -m pytest_manifest``."""

from pytest_manifest.cli.main import main

if __name__ == "__main__":
    main()
