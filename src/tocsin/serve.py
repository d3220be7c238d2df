"""The command `python -m tocsin.serve`."""

from tocsin.cli import serve

if __name__ == "__main__":
    serve()
