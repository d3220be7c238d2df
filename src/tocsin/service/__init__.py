"""The HTTP service: a thin layer over the pipeline, with no training or scoring of its own."""
