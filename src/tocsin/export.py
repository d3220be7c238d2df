"""The command `python -m tocsin.export ckpt_path=... output=model.onnx`."""

from tocsin.cli import export

if __name__ == "__main__":
    export()
