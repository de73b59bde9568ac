"""sill: GPT-2 and small Llama-type models on the computer you have, by the names of transformers.

    from sill import AutoModelForCausalLM, AutoTokenizer, pipeline

in place of `from transformers import ...`; and for tables of texts sill.classify, sill.score, sill.embed. Everything is computed by
libsill, which lies in this package. Neither torch nor transformers is needed; where torch tensors come in, torch tensors come out.
"""
from typing import Any as _Any

from . import errors, refused as _refused
from ._abi import VERSION as __version__
from .compat import get_compat, set_compat, set_seed
from .corpus import classify, embed, score
from .errors import (CancelledError, DeviceError, DoesNotFitError, FormatError, InputOutputError, InternalError, InvalidArgumentError,
                     NotFoundError, OutOfMemoryError, RangeError, SillError, UnsupportedError)
from .modeling import (AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, BitsAndBytesConfig,
                       GenerationConfig, GPT2ForSequenceClassification, GPT2LMHeadModel, GPT2Model, LlamaForCausalLM,
                       LlamaForSequenceClassification, PretrainedConfig, PreTrainedModel)
from .pipelines import (FeatureExtractionPipeline, Pipeline, TextClassificationPipeline, TextGenerationPipeline,
                        ZeroShotClassificationPipeline, pipeline)
from .tokenization import (AutoTokenizer, BatchEncoding, GPT2Tokenizer, GPT2TokenizerFast, PreTrainedTokenizer,
                           PreTrainedTokenizerFast)

__all__ = [
    "AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForSequenceClassification", "AutoTokenizer", "BatchEncoding",
    "BitsAndBytesConfig", "CancelledError", "DeviceError", "DoesNotFitError", "FeatureExtractionPipeline", "FormatError",
    "GPT2ForSequenceClassification", "GPT2LMHeadModel", "GPT2Model", "GPT2Tokenizer", "GPT2TokenizerFast", "GenerationConfig",
    "InputOutputError", "InternalError", "InvalidArgumentError", "LlamaForCausalLM", "LlamaForSequenceClassification", "NotFoundError",
    "OutOfMemoryError", "Pipeline", "PreTrainedModel", "PreTrainedTokenizer", "PreTrainedTokenizerFast", "PretrainedConfig", "RangeError",
    "SillError", "TextClassificationPipeline", "TextGenerationPipeline", "UnsupportedError", "ZeroShotClassificationPipeline",
    "__version__", "classify", "embed", "errors", "get_compat", "pipeline", "score", "set_compat", "set_seed",
]


def __getattr__(name: str) -> _Any:
    raise _refused.from_module(name)
