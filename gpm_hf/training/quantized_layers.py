"""Layers in 4 bits that are evaluated and then trained."""


def keep_trainable(model):
    """
    On a CPU with instructions for bfloat16 the first evaluation turns a 4-bit weight of bitsandbytes into the form of
    a kernel that has no gradient. Training steps after it go through that kernel too, and what lies before a layer
    learns nothing any more. Such layers keep their first form here.

    Args:
        model (`torch.nn.Module`): about to be trained, on any device.
    """
    for module in model.modules():
        if type(module).__name__ == "Linear4bit":
            module.support_avx512bf16_for_cpu = False
