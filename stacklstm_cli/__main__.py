"""`python -m stacklstm_cli`: the same as the command `stacklstm`."""

from stacklstm_cli.cli.app import main

if __name__ == "__main__":
    main()
