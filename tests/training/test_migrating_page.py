"""docs/migrating.md names every option of TRL's that is refused here."""

from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "migrating.md"


@pytest.mark.parametrize("config", ["online_gpo_config", "offline_gpo_config"])
def test_every_refused_option_is_on_the_page(config):
    from importlib import import_module

    page = PAGE.read_text(encoding="utf-8")
    refused = import_module(f"gpm_hf.training.{config}")._IGNORED
    assert refused and not [name for name in refused if f"`{name}`" not in page]


def test_its_settings_are_possible():
    from gpm_hf import GPMRewardConfig, OnlineGPOConfig

    on_cpu = {"use_cpu": True, "bf16": False}
    assert GPMRewardConfig("out", embedding_dim=1, tau=1.0, **on_cpu).tau == 1.0
    args = OnlineGPOConfig("out", **on_cpu)
    assert (args.num_iterations, args.disable_dropout, args.scale_rewards, args.beta) == (2, True, "none", 0.0)
    with pytest.raises(ValueError, match="center_rewards_coefficient"):
        GPMRewardConfig("out", center_rewards_coefficient=0.1, **on_cpu)
