"""Names of transformers that sill has not: each is refused with what to do instead, and not as a typing error would be."""
from __future__ import annotations

import re
from typing import Any

from .errors import UnsupportedError


class MissingError(UnsupportedError, AttributeError):
    """An attribute or method that transformers has and sill has not. hasattr() says False."""


class MissingImportError(UnsupportedError, ImportError):
    """A class or function that transformers has and sill has not."""


def _table(*groups: tuple[str, str]) -> dict[str, str]:
    return {name: hint for names, hint in groups for name in names.split()}


_NO_TRAINING = "this version of sill does not train models"
_FILES = "the model's files are where they were loaded from (name_or_path); `sill convert` writes safetensors and GGUF, `sill quantize` smaller types"
_WEIGHTS = "libsill holds the weights and they cannot be changed; read them from the model's files (the packages safetensors and gguf do)"
_ONE_WAY = "sill has kernels of its own, and one way to compute"
_NO_TOKENS = "sill adds no tokens to a model; of those that there are tokenizer.pad_token and the like can be set"
_OFFSETS = "the tokenizer's return_offsets_mapping=True says which characters each token stands for"
_CLASSES = "sill runs GPT-2 and Llama-type models: AutoModelForCausalLM, AutoModelForSequenceClassification, AutoModel, AutoTokenizer, AutoConfig"
_CONSTRAIN = "generate takes bad_words_ids, suppress_tokens, sequence_bias, stop_strings, choices, regex and json_schema"

MODEL = _table(
    ("save_pretrained push_to_hub register_for_auto_class", _FILES),
    ("resize_token_embeddings resize_position_embeddings", _NO_TOKENS),
    ("get_input_embeddings set_input_embeddings get_output_embeddings set_output_embeddings get_position_embeddings state_dict load_state_dict "
     "parameters named_parameters buffers named_buffers get_parameter get_buffer get_parameter_or_buffer named_non_persistent_buffers lm_head "
     "transformer base_model model wte wpe tie_weights init_weights initialize_weights dequantize prune_heads retrieve_modules_from_names "
     "get_expanded_tied_weights_keys mark_tied_weights_as_initialized post_init get_init_context all_tied_weights_keys smart_apply", _WEIGHTS),
    ("modules named_modules children named_children get_submodule set_submodule add_module register_module register_buffer register_parameter apply "
     "register_forward_hook register_forward_pre_hook register_backward_hook register_full_backward_hook register_full_backward_pre_hook "
     "register_state_dict_post_hook register_state_dict_pre_hook register_load_state_dict_pre_hook register_load_state_dict_post_hook "
     "get_extra_state set_extra_state extra_repr type dump_patches call_super_init T_destination get_encoder set_encoder get_decoder set_decoder",
     "a model is no torch module; sill.AutoModel gives the last hidden states, sill.embed vectors of texts"),
    ("compile get_compiled_call is_backend_compatible set_attn_implementation get_correct_attn_implementation get_experts_implementation "
     "set_experts_implementation get_correct_experts_implementation set_use_kernels use_kernels supports_tp_plan supports_pp_plan "
     "supports_context_parallel tp_size fsdp_size share_memory to_empty tp_plan pp_plan ep_plan fsdp_plan init_parallel_plans kernel_config "
     "prepare_distribute_model maybe_distribute_model is_distributed_loading_by_transformers gather_sharded_state_dict_for_save "
     "save_distributed_checkpoint barrier_after_gathered_checkpoint_save should_save_on_this_rank", _ONE_WAY + "; from_pretrained takes n_threads, dtype and device"),
    ("double ipu xpu mtia", "to() knows the devices cpu, mps, cuda and 0, and the types float32, float16 and bfloat16"),
    ("zero_grad backward loss_function loss_type gradient_checkpointing_enable gradient_checkpointing_disable is_gradient_checkpointing "
     "activation_checkpointing_enable activation_checkpointing_disable is_activation_checkpointing supports_gradient_checkpointing "
     "enable_input_require_grads disable_input_require_grads add_model_tags model_tags", _NO_TRAINING + "; model(ids, labels=ids).loss is there"),
    ("add_adapter load_adapter set_adapter enable_adapters disable_adapters delete_adapter active_adapters get_adapter_state_dict peft_config "
     "enable_peft_hotswap merge_and_unload", "sill loads no adapters; merge them into the weights with peft and load the result"),
    ("compute_transition_scores", "sill.score(texts, per=\"token\") gives the log-probability of each token"),
    ("generate_batch init_continuous_batching continuous_batching_context_manager destroy_cached_continuous_batching_manager",
     "generate() and pipelines keep the batch full by themselves: give all rows at once"),
    ("generate can_generate", "it has no language-model head; AutoModelForCausalLM has"),
    ("prepare_inputs_for_generation heal_tokens load_custom_generate adjust_generation_fn greedy_search sample beam_search beam_sample "
     "contrastive_search group_beam_search constrained_beam_search assisted_decoding", "generate() goes the whole way: num_beams, do_sample and others choose how"),
    ("config_class generation_config_class base_model_prefix main_input_name input_modalities output_modalities can_record_outputs dummy_inputs "
     "is_remote_code is_custom_code warn_if_padding_and_no_attention_mask", "it says how transformers works inside; config has what the model's files say"),
)
TOKENIZER = _table(
    ("save_pretrained save_vocabulary push_to_hub register_for_auto_class save_chat_templates can_save_slow_tokenizer",
     "the tokenizer's files are where they were loaded from (name_or_path)"),
    ("train_new_from_iterator", "sill makes no tokenizers; the package tokenizers does, and sill reads its tokenizer.json"),
    ("backend_tokenizer decoder model convert_to_native_format convert_added_tokens slow_tokenizer_class vocab_files_names pretrained_vocab_files_map "
     "SPECIAL_TOKENS_ATTRIBUTES", "libsill tokenizes; tokenizer(text), decode(ids) and get_vocab() are there"),
    ("added_tokens_encoder added_tokens_decoder get_added_vocab", "get_vocab() has every token, all_special_tokens those that are special"),
    ("additional_special_tokens additional_special_tokens_ids pad_token_type_id", "all_special_tokens has every special token"),
    ("num_special_tokens_to_add max_len_single_sentence max_len_sentences_pair build_inputs_with_special_tokens get_special_tokens_mask "
     "create_token_type_ids_from_sequences prepare_for_model prepare_seq2seq_batch update_post_processor add_bos_token add_eos_token "
     "set_truncation_and_padding", "tokenizer(text, text_pair, add_special_tokens=..., return_special_tokens_mask=True) says what comes to a text"),
    ("clean_up_tokenization", "texts come back as they were: decode changes nothing"),
    ("get_chat_template encode_message_with_chat_template parse_response get_response_parser",
     "apply_chat_template(messages) renders ChatML's and Zephyr's templates"),
    ("as_target_tokenizer sanitize_special_tokens", _NO_TRAINING),
    ("add_prefix_space", "put the space into the text"),
    ("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", "texts come back as they were: decode changes nothing"),
    ("split_special_tokens", "tokenizer(text, split_special_tokens=True) is there"),
    ("backend chat_control_tokens response_template deprecation_warnings files_loaded init_inputs verbose",
     "it says how transformers works inside; init_kwargs has what the tokenizer's files say"),
)
ENCODING = _table(
    ("word_ids words word_to_tokens token_to_word word_to_chars char_to_word token_to_chars char_to_token encodings", _OFFSETS),
    ("sequence_ids token_to_sequence n_sequences", "tokenize the two texts by themselves: their ids, one behind the other, are those of the pair"),
    ("convert_to_tensors", "the tokenizer takes return_tensors=\"pt\" or \"np\""),
)
PIPELINE = _table(
    ("save_pretrained push_to_hub", _FILES),
    ("preprocess postprocess forward get_iterator run_single ensure_tensor_on_device get_inference_context device_placement check_model_type",
     "call the pipeline with a list of texts: rows are batched by sill"),
    ("transform predict", "call the pipeline itself with a list of texts"),
    ("torch_dtype", "dtype has it"),
    ("prefix XL_PREFIX", "call the pipeline with prefix=..."),
    ("assistant_model assistant_tokenizer", "call the pipeline with assistant_model=..., a model of sill's with the same vocabulary"),
    ("binary_output call_count default_input_names feature_extractor image_processor processor video_processor framework modelcard",
     "a pipeline has model, tokenizer, device and task"),
)
OUTPUT = _table(("past_key_values", "sill keeps no key-value cache between calls of a model; generate() continues texts, and "
                                    "model(ids) computes all of ids"))
CONFIG = _table(("save_pretrained push_to_hub register_for_auto_class", _FILES))

# What generate takes in transformers, and forward.
ARGUMENTS = _table(
    ("past_key_values cache_position", "sill keeps no key-value cache between calls; give all ids of the text"),
    ("output_attentions head_mask", "attention weights are computed piece by piece and not kept"),
    ("output_hidden_states", "sill.AutoModel gives the last hidden states, sill.embed vectors of texts"),
    ("inputs_embeds", "give input_ids"),
    ("position_ids", "they follow from attention_mask, also where padding is on the left"),
    ("output_scores output_logits return_dict_in_generate", "sill.score(texts, per=\"token\") gives the log-probability of each token"),
    ("logits_processor prefix_allowed_tokens_fn constraints force_words_ids", _CONSTRAIN),
    ("stopping_criteria max_time", "generate takes max_new_tokens and stop_strings, and a streamer's exception ends it"),
    ("penalty_alpha dola_layers top_h token_healing watermarking_config guidance_scale negative_prompt_ids num_beam_groups diversity_penalty",
     "generate has greedy search, beams and sampling with temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff and eta_cutoff"),
    ("forced_bos_token_id forced_eos_token_id encoder_repetition_penalty encoder_no_repeat_ngram_size", "it is for models with an encoder"),
)

_NAMES = _table(
    ("Trainer TrainingArguments Seq2SeqTrainer Seq2SeqTrainingArguments TrainerCallback EarlyStoppingCallback AdamW get_scheduler "
     "get_linear_schedule_with_warmup get_cosine_schedule_with_warmup get_constant_schedule DataCollatorWithPadding "
     "DataCollatorForLanguageModeling DataCollatorForTokenClassification DataCollatorForSeq2Seq default_data_collator",
     _NO_TRAINING + "; train with transformers and load what save_pretrained writes"),
    ("TextStreamer TextIteratorStreamer BaseStreamer", "a streamer of generate is any object with put(ids) and end(); transformers' own work, too"),
    ("LogitsProcessor LogitsProcessorList LogitsWarper StoppingCriteria StoppingCriteriaList MaxLengthCriteria Constraint PhrasalConstraint "
     "DisjunctiveConstraint", _CONSTRAIN),
    ("Cache DynamicCache StaticCache QuantizedCache", ARGUMENTS["past_key_values"]),
    ("logging", "sill's messages come by Python's logging.getLogger(\"sill\")"),
    ("AutoProcessor AutoFeatureExtractor AutoImageProcessor AutoVideoProcessor AutoBackbone AutoModelForVision2Seq", "sill reads texts alone"),
    ("GPTQConfig AwqConfig HqqConfig QuantoConfig TorchAoConfig EetqConfig FineGrainedFP8Config",
     "from_pretrained takes load_in_8bit=True and load_in_4bit=True; GGUF files hold other types"),
    ("EvalPrediction HfArgumentParser Conversation PretrainedBartModel", "it is not a part of sill"),
)
_LOOKS_LIKE_A_CLASS = re.compile(r"[A-Z]\w*(Model|Config|Tokenizer|TokenizerFast|Processor|FeatureExtractor|For[A-Z]\w+|HeadModel|HeadsModel|Pipeline)")


class Refuses:
    """Objects whose missing names are looked up in a table before they are said to be unknown."""

    _refused: dict[str, str] = {}

    def __getattr__(self, name: str) -> Any:
        hint = type(self)._refused.get(name)
        kind = type(self).__name__
        if hint is not None:
            raise MissingError(f"{kind}.{name} is not in sill: {hint}")
        raise AttributeError(f"{kind!r} object has no attribute {name!r}")


def argument(what: str, name: str, value: Any) -> UnsupportedError:
    """The error for an argument of transformers that sill has not."""
    shown = repr(value)
    shown = shown if len(shown) < 60 else type(value).__name__
    hint = ARGUMENTS.get(name)
    return UnsupportedError(f"{what}: {name}={shown} is not in this version of sill" + (f": {hint}" if hint else ""))


def from_module(name: str) -> Exception:
    """The error for sill.NAME."""
    hint = _NAMES.get(name) or (_CLASSES if _LOOKS_LIKE_A_CLASS.fullmatch(name) else None)
    if hint is not None:
        return MissingImportError(f"sill has no {name}: {hint}")
    return AttributeError(f"module 'sill' has no attribute {name!r}")
