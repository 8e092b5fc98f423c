"""Model pipelines: what a model's stages execute from pixels to tokens; the pipeline NAME of a model's config is defined in NAME.py."""
