"""``python -m torch2mobile``."""

from torch2mobile.cli import main

if __name__ == "__main__":
    main()
