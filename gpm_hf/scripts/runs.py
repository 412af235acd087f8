"""What the launch scripts of training share: the model that options name, and how a run ends."""

from typing import Any

from trl import ModelConfig, get_peft_config, get_quantization_config

from gpm_hf.scoring import load_gguf_language_model, load_tokenizer, with_gguf_file


def model_arguments(training_args: Any, model_args: ModelConfig) -> dict[str, Any]:
    """A trainer's arguments about its model; how it is loaded becomes a part of `model_init_kwargs`."""
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    return {
        "model": model_args.model_name_or_path,
        "quantization_config": get_quantization_config(model_args),
        "peft_config": get_peft_config(model_args),
    }


def policy_arguments(training_args: Any, model_args: ModelConfig) -> dict[str, Any]:
    """The same about a policy, which in a folder with one `.gguf` file is loaded here."""
    name, given = str(model_args.model_name_or_path), training_args.model_init_kwargs
    found = model_arguments(training_args, model_args)
    if "gguf_file" in with_gguf_file(name, {}):
        training_args.model_init_kwargs = given
        model = load_gguf_language_model(name, dtype=model_args.dtype)
        found |= {"model": model, "processing_class": load_tokenizer(name)}
    return found


def finish(trainer: Any, training_args: Any, **card: Any) -> None:
    """Writes the card of a model that was saved, says where it is, uploads it where that is asked for."""
    trainer.create_model_card(**card)
    trainer.accelerator.print(f"Saved to {training_args.output_dir}.")
    if training_args.push_to_hub:
        trainer.push_to_hub(**card)
    end_together(trainer)


def end_together(trainer: Any) -> None:
    """Ends a trainer on all processes. The main one may still be writing: none leaves before."""
    trainer.accelerator.wait_for_everyone()
    trainer.end()
