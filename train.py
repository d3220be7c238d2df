"""python train.py --help lists what can be set; the command itself is tocsin.cli.train."""

from tocsin.cli import train

if __name__ == "__main__":
    train()
