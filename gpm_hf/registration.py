"""
Registers the model with transformers' Auto classes and `pipeline` as soon as anybody imports these, and not before:
they bring torch and much else, which `gpm-hf --help` and whoever only wants a name of this package do not need.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_AUTO_CLASSES = "transformers.models.auto.modeling_auto"
_MODELING = "gpm_hf.modeling"


def register_when_imported() -> None:
    """Registers now where the Auto classes are imported already, else right after they, or the model, will be."""
    if _AUTO_CLASSES in sys.modules:
        _after_auto_classes()
    else:
        sys.meta_path.insert(0, _AfterImport({_AUTO_CLASSES: _after_auto_classes, _MODELING: _register}))


def _after_auto_classes() -> None:
    # The model's own files import them too, and are then still on their way; what follows their import registers.
    if _MODELING not in sys.modules:
        importlib.import_module(_MODELING)
        _register()


def _register() -> None:
    from transformers import AutoConfig, AutoModel
    from transformers.pipelines import PIPELINE_REGISTRY

    from gpm_hf.modeling import GPMConfig, GPMForPreference, PreferencePipeline

    if GPMConfig.pipeline_is_registered:
        return
    AutoConfig.register(GPMConfig.model_type, GPMConfig)
    AutoModel.register(GPMConfig, GPMForPreference)
    PIPELINE_REGISTRY.register_pipeline("preference", PreferencePipeline, pt_model=AutoModel)
    GPMConfig.pipeline_is_registered = True


class _AfterImport(MetaPathFinder):
    """Calls a function right after a module of a certain name was imported."""

    def __init__(self, actions: dict[str, Callable[[], None]]):
        self.actions = actions

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name not in self.actions:
            return None
        action = self.actions.pop(name)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _LoaderWithAction(spec.loader, action)
        return spec


class _LoaderWithAction(Loader):
    def __init__(self, loader: Loader, action: Callable[[], None]):
        self.loader = loader
        self.action = action

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is as if it had been imported without this.
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        self.action()
