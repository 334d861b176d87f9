"""`python -m dualprop` is the command line."""

from dualprop.cli import main

if __name__ == "__main__":
    main()
