"""python evaluate.py --help lists what can be set; the command itself is tocsin.cli.evaluate."""

from tocsin.cli import evaluate

if __name__ == "__main__":
    evaluate()
