"""
Private and undocumented names of other packages that this one uses. For each the failing test says what breaks without
it; a name in use that is not listed fails too.

Names are written as they are used: `name` of a class or module, `name(a, b)` with parameters that must be there,
`self.name` for what an object sets in its methods, `[name]` for a word of a module's source (a key of a batch, say).
"""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

import gpm_hf

GRPO = "trl.trainer.grpo_trainer:GRPOTrainer"
DPO = "trl.trainer.dpo_trainer:DPOTrainer"
REWARD = "trl.trainer.reward_trainer:RewardTrainer"
TRAINER = "transformers.trainer:Trainer"
MODEL = "transformers.modeling_utils:PreTrainedModel"
CONFIG = "transformers.configuration_utils:PreTrainedConfig"
PIPELINE = "transformers.pipelines.base:Pipeline"
CARD = "the tags and the name of a trainer's card are its own"
SIGNATURE = "columns of ours would be dropped from the batches"
ADDED_UP = "the metrics of ours are logged with TRL's, as means between two logs"
TOKENS = "tokens seen are counted and go on after a resume"

NAMES: dict[str, dict[str, str]] = {
    GRPO: {
        "_compute_loss(model, inputs)": "GPO's loss would never be called, and GRPO's would train",
        "_calculate_rewards(inputs, prompts, completions, completion_ids_list)": "groups would not be scored together",
        "_generate_and_score_completions(inputs)": "batches would have no GPO targets",
        "_set_signature_columns_if_needed": f"opponent_responses: {SIGNATURE}",
        "_get_per_token_logps_and_entropies(model, input_ids, attention_mask, logits_to_keep, batch_size, "
        "compute_entropy, compute_aux_loss)": "the log-ratios of GPO's loss, and the divergence from the start",
        "_tokenize_prompts(prompts)": "the initial policy and opponents read prompts as GRPO does",
        "_generate(prompts)": "nobody would look whether what is sampled is from the policy",
        "_generate_single_turn(prompt_ids, images, multimodal_fields, num_generations)": "the start's answers",
        "_tag_names": CARD,
        "_name": CARD,
        "self._metrics": ADDED_UP,
        "self._total_train_tokens": TOKENS,
        "self._pending_metrics": "what reward functions log about an opponent's responses is dropped",
        "self._pending_extra_logs": "what reward functions log about an opponent's responses is dropped",
        "self._dist": "sharded weights are brought together before an opponent generates",
        "self._signature_columns": f"opponent_responses: {SIGNATURE}",
        "self.eos_token_ids": "where an opponent's response ends",
        "self.aux_loss_enabled": "the balance loss of experts is added to GPO's",
        "self.reward_func_names": "errors name the reward function",
        "self.num_generations_eval": "the size of groups in an evaluation",
        "[old_per_token_logps]": "the log-ratio's denominator",
        "[ref_per_token_logps]": "the divergence from the reference policy",
        "[importance_sampling_ratio]": "the loss is a mean over the policy, and the samples are vLLM's",
        "[sampling_per_token_logps]": "nobody would look whether vLLM samples from the policy",
        "[tool_mask]": "tokens of tools are no part of the loss",
        "self.vllm_generation": "the context of vLLM's engine, after which it would cut a completion, and its type",
        "self.vllm_mode": "the same",
    },
    "trl.import_utils": {
        "is_vllm_available": "that vLLM is not there would not be said in TRL's sentence",
    },
    "trl.generation.vllm_generation:VLLMGeneration": {
        "[LLM]": "an engine in the trainer's process would compute float32 policies in bfloat16",
        "[quantization]": "a quantised policy's engine would be told a type",
        "[driver_worker]": "an engine that cannot take what is trained would not be refused",
        "self.llm": "the context of vLLM's engine, after which it would cut a completion, and its type",
    },
    "trl.trainer.grpo_config:GRPOConfig": {
        "_VALID_DICT_FIELDS": "preference_model_init_kwargs could not be given on the command line",
    },
    DPO: {
        "_prepare_dataset(dataset, processing_class, args, dataset_name)": "sampled ids would be rendered anew",
        "_precompute_ref_logps(dataset, name, batch_size)": "given reference log-probabilities would be overwritten",
        "_set_signature_columns_if_needed": f"targets and weights: {SIGNATURE}",
        "_tag_names": CARD,
        "_name": CARD,
        "compute_ref_log_probs(model, inputs)": "the reference of single responses",
        "self._metrics": ADDED_UP,
        "self._total_train_tokens": TOKENS,
        "self._tp_size": "tensor-parallel processes read the same rows",
        "self._precompute_engine": "ZeRO-3's engine for the reference is taken down before the training's is made",
        "self._signature_columns": f"targets and weights: {SIGNATURE}",
        "self.precompute_ref_logps": "whether the reference stands in the batch",
        "self.router_aux_loss_coef": "the balance loss of experts is added to GPO's",
        "[fused_lm_head]": "log-probabilities without the logits of all tokens in memory",
        "[ref_chosen_logps]": "the column of the reference's log-probabilities",
    },
    REWARD: {
        "_prepare_dataset(dataset, processing_class, args, dataset_name)": "rows would be tokenised otherwise "
        "than they are scored; it is called for each evaluation as well",
        "_set_signature_columns_if_needed": f"labels and states: {SIGNATURE}",
        "_tag_names": CARD,
        "_name": CARD,
        "self._metrics": ADDED_UP,
        "self._total_train_tokens": TOKENS,
        "self._tp_size": "tensor-parallel processes read the same rows",
        "self._signature_columns": f"labels and states: {SIGNATURE}",
    },
    TRAINER: {
        "_save(output_dir, state_dict)": "what is saved could be a mixture of two models' weights",
        "_save_checkpoint(model, trial)": "a checkpoint would lack the figures that a resumed run goes on from",
        "_save_rng_state(output_dir)": "a checkpoint could be taken for whole before all processes have written",
        "_load_from_checkpoint(resume_from_checkpoint, model)": "a folder with two models would be resumed from",
        "_push_from_checkpoint(checkpoint_folder)": "checkpoints with training_args.bin would be uploaded",
        "_finish_current_push": "two uploads could run at once",
        "_get_num_items_in_batch(batch_samples, device)": "the loss would be a mean over micro-batches, not over rows",
        "_run_epoch": "a run resumed after its last step would take one more",
        "_get_output_dir(trial)": "where a checkpoint lies",
        "_get_train_sampler(train_dataset)": "batches of so many tokens",
        "loss_is_scaled_for_ga": "the loss would be divided by the accumulation steps once more",
        "self._signature_columns": SIGNATURE,
        "self._tr_loss": "the losses since the last log go on after a resume",
        "self._total_loss_scalar": "the losses so far go on after a resume",
        "self._globalstep_last_logged": "the first mean after a resume is over the right number of steps",
        "self.current_gradient_accumulation_steps": "the last, shorter accumulation of an epoch is divided by its own",
        "[TRAINER_STATE_NAME]": "the file that makes a checkpoint whole",
    },
    "transformers.trainer_pt_utils": {"BatchRebalanceSampler": "batches of so many tokens are taken for batches"},
    "transformers.trainer_utils": {"PREFIX_CHECKPOINT_DIR": "the name of a checkpoint's folder"},
    "trl.trainer.utils": {
        "pad(tensors, padding_value, padding_side, pad_to_multiple_of)": "batches of responses",
        "create_model_from_path": "the reference opponent is loaded as TRL loads the policy",
        "get_config_model_id(config)": "the default output folder and the tokenizer of a policy given as an object",
        "global_then_local_main_first": "rows are prepared by one process and read by the others",
        "_ChunkedLogProbFunction": "the fixture `double` of the tests replaces it",
    },
    "trl.chat_template_utils": {"parse_response(tokenizer, ids, prefix, tools)": "tool calls in answers"},
    "trl.data_utils": {
        "get_dataset_column_names(dataset)": "columns of a stream",
        "is_conversational(example)": "whether an answer is a message or text",
    },
    "trl.extras.profiling": {"profiling_context": "the time of the preference model in the logs"},
    "trl.models": {
        "prepare_deepspeed(model, accelerator)": "a preference model beside a policy under ZeRO-3",
        "prepare_fsdp(model, accelerator)": "a preference model beside a policy under FSDP",
    },
    "trl.models.utils": {
        "disable_gradient_checkpointing": "the divergence from the start is measured without recomputation",
        "unwrap_model_for_generation(model, accelerator, gather_deepspeed3_params, gradient_checkpointing_kwargs)": (
            "an opponent generates with weights of which each process holds a part"
        ),
    },
    MODEL: {
        "_load_pretrained_model(model, state_dict, checkpoint_files, load_config)": "backbones whose weights have "
        "other names on disk than in memory",
        "_init_weights(module)": "new heads would have the backbone's initialisation",
        "is_custom_code": "what a backbone's container fills in its parts, and no checkpoint has, would stay unfilled",
        "_from_config(config)": "a backbone whose code lies beside its weights",
        "_auto_class": "the code is saved with the model",
        "_is_stateful": "backbones with a state cannot share a prompt or pack rows",
        "_supports_attention_backend": "which backbones can pack rows",
        "_supports_flash_attn": "which backbones can pack rows; flash attention is asked for in from_pretrained",
        "_supports_sdpa": "the backbone decides by which attention it runs",
        "_supports_flex_attn": "the backbone decides by which attention it runs",
        "_keep_in_fp32_modules": "heads stay in float32",
        "_keep_in_fp32_modules_strict": "heads stay in float32",
        "_keys_to_ignore_on_load_unexpected": "a language model's output head would be warned of",
        "_keys_to_ignore_on_load_missing": "the warning about new heads is ours",
    },
    CONFIG: {
        "_auto_class": "the code is saved with the configuration",
        "_attn_implementation": "the backbone's attention survives the outer configuration, and rows are packed by it",
        "_experts_implementation": "the backbone's experts survive the outer configuration",
        "[_commit_hash]": "a backbone's own code is of the commit that its configuration is of",
    },
    PIPELINE: {
        "_load_tokenizer": "the task loads a tokenizer",
        "_load_feature_extractor": "the task loads nothing else",
        "_load_image_processor": "the task loads nothing else",
        "_load_video_processor": "the task loads nothing else",
        "_load_processor": "the task loads nothing else",
        "_sanitize_parameters": "max_sequences",
        "_forward(input_tensors)": "the task's forward",
        "get_iterator(inputs, num_workers, batch_size, preprocess_params, forward_params, postprocess_params)": (
            "groups of different sizes are batched"
        ),
    },
    "transformers.pipelines": {"PIPELINE_REGISTRY": '`pipeline("preference")`'},
    "transformers.pipelines.pt_utils": {
        "PipelineDataset": "groups are read as they are needed",
        "PipelineIterator": "groups are read as they are needed",
    },
    "transformers.core_model_loading": {"[_weight_conversions]": "a model is saved under its own names"},
    "transformers.conversion_mapping": {"[scope_prefix]": "backbones whose weights have other names on disk"},
    "transformers.dynamic_module_utils": {
        "custom_object_save(obj, folder)": "the code is saved with the model",
        "get_class_from_dynamic_module": "a backbone whose code lies beside its weights",
        "resolve_trust_remote_code": "nobody's code runs without being trusted",
    },
    "transformers.generation": {"GenerationMode": "a mixture refuses what is not sampling"},
    "transformers.initialization": {"normal_(tensor, mean, std)": "new heads, but not loaded ones, are drawn"},
    "transformers.integrations": {
        "is_fsdp_enabled": "heads are shared by all processes under FSDP",
        "deepspeed": "models are loaded whole beside a sharded policy",
    },
    "transformers.integrations.deepspeed": {
        "is_deepspeed_zero3_enabled": "models are loaded whole beside a sharded policy",
        "_hf_deepspeed_config_weak_ref": "models are loaded whole beside a sharded policy",
        "set_hf_deepspeed_config": "models are loaded whole beside a sharded policy",
        "unset_hf_deepspeed_config": "models are loaded whole beside a sharded policy",
    },
    "transformers.integrations.flash_attention": {"get_target_dtype": "packed rows by flash attention"},
    "transformers.integrations.flex_attention": {"flex_attention_forward": "packed rows by flex attention"},
    "transformers.integrations.sdpa_attention": {"sdpa_attention_forward": "packed rows by SDPA"},
    "transformers.masking_utils": {
        "flash_attention_mask": "packed rows by flash attention",
        "flex_attention_mask": "packed rows by flex attention",
        "sdpa_mask": "packed rows by SDPA",
    },
    "transformers.modeling_flash_attention_utils": {"_flash_attention_forward": "packed rows by flash attention"},
    "transformers.models.auto.modeling_auto": {
        "MODEL_FOR_CAUSAL_LM_MAPPING": "under which prefix a language model's checkpoint has its backbone",
        "MODEL_FOR_MASKED_LM_MAPPING": "under which prefix a language model's checkpoint has its backbone",
    },
    "transformers.tokenization_utils_base": {"LARGE_INTEGER": "whether a tokenizer knows a longest text"},
    "transformers.trainer": {"TRAINER_STATE_NAME": "the file that makes a checkpoint whole"},
    "peft.mapping": {"PEFT_TYPE_TO_TUNER_MAPPING": "PEFT's default modules of a backbone"},
    "peft.tuners.tuners_utils:BaseTuner": {
        "_prepare_adapter_config(peft_config, model_config)": "PEFT's default modules of a backbone"
    },
    "peft.utils": {"load_peft_weights": "whether an adapter's weights are those of its heads"},
    "peft.utils.transformers_weight_conversion": {
        "convert_peft_config_for_transformers(peft_config, model, conversions)": "adapters of experts",
        "get_model_conversion_mapping(model)": "adapters of experts",
    },
    "accelerate.state": {"AcceleratorState": "an iteration's trainer after another's under DeepSpeed"},
    "accelerate.state:AcceleratorState": {"_reset_state": "an iteration's trainer after another's under DeepSpeed"},
    "accelerate.state:GradientState": {
        "active_dataloader": "rows that accelerate repeated do not count",
        "end_of_dataloader": "rows that accelerate repeated do not count",
    },
    "accelerate.hooks": {"[_hf_hook]": "token ids go where offloaded weights are computed with"},
    "accelerate.commands.launch": {
        "launch_command(args)": "`gpm-hf train`",
        "launch_command_parser": "`gpm-hf train`",
    },
    "datasets.arrow_dataset:Dataset": {"[_fingerprint]": "what was made of rows by other versions is made anew"},
    "datasets.fingerprint": {"Hasher": "what was made of rows by other versions is made anew"},
    "datasets.exceptions": {"DatasetGenerationError": "what is wrong with a file is said in words"},
    "datasets.utils": {"tqdm": "the bar over hidden states obeys datasets' switch"},
    "datasets.utils.json": {"ujson_loads": "numbers of JSON Lines are read as datasets reads them"},
    "datasets.config": {"HF_DATASETS_CACHE": "where hidden states lie"},
    "huggingface_hub.constants": {"HF_HOME": "where digests of files are kept"},
    "torch.nn.attention.flex_attention": {
        "create_block_mask(mask_mod, B, H, Q_LEN, KV_LEN, device, _compile)": ("packed rows by flex attention")
    },
}

# What their documentation names; of private names none.
DOCUMENTED = {
    "accelerate",
    "accelerate.utils",
    "datasets",
    "huggingface_hub",
    "huggingface_hub.errors",
    "huggingface_hub.utils",
    "peft",
    "transformers",
    "transformers.configuration_utils",
    "transformers.modeling_utils",
    "transformers.pipelines.base",
    "transformers.trainer_utils",
    "transformers.utils",
    "trl",
}
PACKAGES = ("accelerate", "datasets", "huggingface_hub", "peft", "transformers", "trl")
# Names of ours that a base class of another of ours has by chance, and those of named tuples.
OURS = {"_apply", "_asdict", "_fields", "_generate", "_replace"}
ENTRIES = [(owner, name, why) for owner, names in NAMES.items() for name, why in names.items()]


def bare(name):
    return re.sub(r"\(.*\)", "", name).removeprefix("self.").strip("[]")


def owner_of(path):
    module, _, class_name = path.partition(":")
    found = importlib.import_module(module)
    return getattr(found, class_name) if class_name else found


@cache
def source_of(owner):
    """Of a module, or of the modules of a class and of those that it is made of."""
    parts = [owner]
    if inspect.isclass(owner):
        names = dict.fromkeys(one.__module__ for one in inspect.getmro(owner))
        parts = [sys.modules[name] for name in names if name.split(".")[0] in PACKAGES]
    return "\n".join(map(inspect.getsource, parts))


def fault(path, name, why):
    """A sentence where a name is not as it is used."""
    owner, plain = owner_of(path), bare(name)
    if name.startswith("self."):
        gone = not re.search(rf"\bself\.{plain}\b\s*(:[^=\n]+)?=[^=]|def {plain}\(", source_of(owner))
    elif name.startswith("["):
        module = importlib.import_module(path.partition(":")[0])
        gone = not re.search(rf"\b{plain}\b", source_of(module))
    else:
        gone = not hasattr(owner, plain)
    said = f"{path} has no {plain}"
    if not gone and "(" in name:
        known = inspect.signature(getattr(owner, plain)).parameters
        takes_any = any(one.kind is one.VAR_KEYWORD for one in known.values())
        missing = [one for one in re.search(r"\((.*)\)", name)[1].split(", ") if one not in known]
        gone, said = bool(missing) and not takes_any, f"{path}.{plain} has no parameter {', '.join(missing)}"
    return f"{said}. What breaks: {why}. Used in {', '.join(users().get(plain, ['the tests']))}." if gone else None


@cache
def texts():
    """What stands in the files of this package."""
    folder = Path(gpm_hf.__file__).parent
    return {str(file.relative_to(folder.parent)): file.read_text(encoding="utf-8") for file in folder.rglob("*.py")}


@cache
def users():
    """The files that have a word."""
    found = {}
    for file, text in sorted(texts().items()):
        for word in set(re.findall(r"\w+", text)):
            found.setdefault(word, []).append(file)
    return found


@pytest.mark.parametrize(("path", "name", "why"), ENTRIES, ids=[f"{path}.{bare(name)}" for path, name, _ in ENTRIES])
def test_a_name_is_as_it_is_used(path, name, why, monkeypatch):
    found = fault(path, name, why)
    assert found is None, found

    owner, plain, source_with_it = owner_of(path), bare(name), source_of
    if name.startswith(("self.", "[")):
        monkeypatch.setattr(f"{__name__}.source_of", lambda owner: source_with_it(owner).replace(plain, "gone"))
    elif inspect.isclass(owner):
        for one in inspect.getmro(owner):
            if plain in vars(one):
                monkeypatch.delattr(one, plain)
    else:
        # Not the module itself: one that imports as late as it can would import it anew.
        without = SimpleNamespace(**{other: value for other, value in vars(owner).items() if other != plain})
        monkeypatch.setattr(f"{__name__}.owner_of", lambda path: without)
    said = fault(path, name, why)
    assert said is not None and plain in said and why in said


def test_every_name_in_use_is_listed():
    """Imports of what is not documented, and private names that are not ours or that a base class has too."""
    listed = {bare(name) for names in NAMES.values() for name in names}
    trees = {file: ast.parse(text) for file, text in texts().items()}
    defined, upstream, missing = set().union(*map(definitions, trees.values())), names_of_bases(), set()
    for file, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and not node.level and node.module.split(".")[0] in PACKAGES:
                names = [alias.name for alias in node.names]
                unlisted = [one for one in names if is_private(one) or node.module not in DOCUMENTED]
            elif isinstance(node, (ast.Attribute, ast.FunctionDef)):
                name = node.attr if isinstance(node, ast.Attribute) else node.name
                known = defined if isinstance(node, ast.Attribute) else {name}
                unlisted = [name] if is_private(name) and (name in upstream or name not in known) else []
            else:
                continue
            missing |= {f"{file}: {one}" for one in unlisted if one not in listed | OURS}
    assert not missing, f"List them in NAMES, with what breaks without them: {sorted(missing)}"


def is_private(name):
    return bool(re.match(r"_[^_]", name))


def definitions(tree):
    """Names that a file of ours gives to what its classes and their objects have."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                targets = inner.targets if isinstance(inner, ast.Assign) else [inner]
                found |= {one.id for one in targets if isinstance(one, ast.Name)}
                if isinstance(inner, ast.FunctionDef):
                    found.add(inner.name)
                elif isinstance(inner, ast.AnnAssign) and isinstance(inner.target, ast.Name):
                    found.add(inner.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name):
            found |= {node.attr} if node.value.id == "self" else set()
    return found


def names_of_bases():
    """Private names of the classes of other packages that ours are made of: theirs, and what their methods set."""
    found = set()
    for room in ("training", "modeling", "generation"):
        package = importlib.import_module(f"gpm_hf.{room}")
        for module in pkgutil.iter_modules(package.__path__, f"gpm_hf.{room}."):
            for one in vars(importlib.import_module(module.name)).values():
                if inspect.isclass(one) and one.__module__.startswith("gpm_hf."):
                    for base in inspect.getmro(one):
                        if base.__module__.split(".")[0] in PACKAGES:
                            found |= {*vars(base), *re.findall(r"\bself\.(_\w+)\b[^\n=]*=[^=]", source_of(base))}
    return set(filter(is_private, found))
