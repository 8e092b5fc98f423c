"""The configuration of the tests' small snapshot: everything stands in its config.json."""

from transformers import PretrainedConfig


class DeepseekV2Config(PretrainedConfig):
    model_type = "deepseek_v2"
