"""python predict.py --help lists what can be set; the command itself is tocsin.cli.predict."""

from tocsin.cli import predict

if __name__ == "__main__":
    predict()
