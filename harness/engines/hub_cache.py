"""Where images with the Hub's own cache layout keep models and the token: one volume for all such engines.

TGI's images keep theirs elsewhere (tgi/images.py). huggingface_hub reads $HF_HOME/token, HF_HOME being
~/.cache/huggingface where it is not set (huggingface_hub/constants.py).
"""

from __future__ import annotations

VOLUME = "harness-models-huggingface"
TARGET = "/root/.cache/huggingface"
TOKEN_PLACE = f"{TARGET}/token"
