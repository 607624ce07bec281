"""`python -m det_core` is `det-core`."""

from det_core.cli.main import main

if __name__ == "__main__":
    main()
