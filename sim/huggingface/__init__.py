"""Reads any Hugging Face `config.json` whose layers its keys determine."""

from sim.huggingface.reader import model_from_config as model_from_config
