"""Libraries that a plain picture never uses, imported only when something does use them.

diffusers, transformers, accelerate and torch itself import torch's compiler, torch.distributed, sympy, torchao, peft
and boto3 for a few decorators, checks and type tests. That is a third of the time that the imports before a first
picture take. `leave_out` puts stand-ins in their place, which answer what the libraries are known to ask. Whatever else
is asked brings in the real module, so that the worst case is the time that was to be saved: `torch.compile` brings in
the compiler, and a LoRA brings in peft.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType, SimpleNamespace
from typing import Any, Final

DYNAMO: Final = "torch._dynamo"
SYMBOLIC_SHAPES: Final = "torch.fx.experimental.symbolic_shapes"
NAMES: Final[dict[str, tuple[str, ...]]] = {  # by module: what the libraries take from it and use late or never
    f"{DYNAMO}._trace_wrapped_higher_order_op": ("TransformGetItemToIndex",),
    SYMBOLIC_SHAPES: ("guarding_hint_or_throw", "has_guarding_hint", "statically_known_true", "sym_max", "sym_min"),
    "torch.distributed._functional_collectives": (),
    "sympy": ("Basic",),
    "diffusers.quantizers.torchao": ("TorchAoHfQuantizer",),
    "transformers.quantizers.quantizer_torchao": ("TorchAoHfQuantizer",),
    "peft": ("PeftModel",),
    "peft.helpers": ("disable_input_dtype_casting",),
    "peft.tuners.tuners_utils": ("BaseTunerLayer",),
    "accelerate.commands.config.sagemaker": ("get_sagemaker_input",),  # imports boto3
}


def leave_out() -> None:
    """Put stand-ins in the place of what is not imported yet; before diffusers and transformers are imported."""
    if DYNAMO in sys.modules:
        return
    sys.meta_path.insert(0, _Finder())
    stand_ins = (_Dynamo(), _SymbolicShapes(), *(_Names(name) for name in NAMES if name != SYMBOLIC_SHAPES))
    sys.modules |= {stand_in.__name__: stand_in for stand_in in stand_ins if stand_in.__name__ not in sys.modules}
    _leave_out_distributed()


def _leave_out_distributed() -> None:
    """Let transformers find a torch that was built without torch.distributed, as it is for some platforms."""
    import torch.distributed
    from transformers.utils import import_utils

    known = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        import_utils.is_torch_distributed_available()  # remembers the answer
    finally:
        torch.distributed.is_available = known


def _bring_in(name: str) -> Any:
    """The real module in place of its stand-in, of those below it and of those that it takes more from."""
    stand_in = sys.modules.get(name)
    also = (SYMBOLIC_SHAPES, "sympy") if name in (DYNAMO, SYMBOLIC_SHAPES) else ()
    for other in (name, *also, *(other for other in NAMES if other.startswith(f"{name}."))):
        if isinstance(sys.modules.get(other), _StandIn):
            del sys.modules[other]
    module = importlib.import_module(name)
    if isinstance(stand_in, _Dynamo):
        for decorated in stand_in.allowed:
            module.allow_in_graph(decorated)
    return module


class _StandIn(ModuleType):
    """A module that knows a few names; any other brings in the real one."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__path__: list[str] = []  # a package may be imported from
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)  # libraries look for it, to see what is installed

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(_bring_in(self.__name__), name)


class _Names(_StandIn):
    """A stand-in whose names bring in the real ones when they are used."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        for known in NAMES[name]:
            setattr(self, known, _LateName(known, (), {"__module__": name}))


class _LateName(type):
    """The type of a name that is looked up when it is called or asked for an attribute."""

    def __call__(cls, *arguments: Any, **named: Any) -> Any:
        return cls._real()(*arguments, **named)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(cls._real(), name)

    def __instancecheck__(cls, instance: object) -> bool:
        """A class whose module was never imported has no instances."""
        module = sys.modules.get(cls.__module__)
        return module is not None and not isinstance(module, _StandIn) and isinstance(instance, cls._real())

    def _real(cls) -> Any:
        is_left_out = isinstance(sys.modules.get(cls.__module__), _StandIn)
        module = _bring_in(cls.__module__) if is_left_out else importlib.import_module(cls.__module__)
        return getattr(module, cls.__name__)


class _Dynamo(_StandIn):
    """What libraries ask of `torch._dynamo` where nothing is compiled."""

    def __init__(self) -> None:
        super().__init__(DYNAMO)
        self.allowed: list[Any] = []
        self.eval_frame = SimpleNamespace(OptimizedModule=_Compiled)

    def allow_in_graph(self, decorated: Any) -> Any:
        self.allowed.append(decorated)
        return decorated

    def assume_constant_result(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """For kernels that FLUX does not use."""
        return function

    def disable(self, function: Any = None, recursive: bool = True, **_: Any) -> Any:
        """For language models that answer in batches."""
        return function if function is not None else lambda decorated: decorated


class _Compiled:
    """The class of compiled modules, while there are none."""


class _SymbolicShapes(_Names):
    """What torch's own checks of shapes ask: while no size is a symbol, plain Python answers."""

    def __init__(self) -> None:
        super().__init__(SYMBOLIC_SHAPES)
        for question in ("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious", "sym_and"):
            setattr(self, question, partial(self._of_claims, question, all))
        self.sym_or = partial(self._of_claims, "sym_or", any)

    def is_nested_int(self, size: Any) -> Any:
        return type(size) is not int and _bring_in(SYMBOLIC_SHAPES).is_nested_int(size)

    def sym_eq(self, one: Any, other: Any) -> Any:
        if type(one) is type(other) is tuple and all(type(size) is int for size in (*one, *other)):
            return one == other
        return _bring_in(SYMBOLIC_SHAPES).sym_eq(one, other)

    @staticmethod
    def _of_claims(question: str, answer: Callable[[Any], bool], *claims: Any) -> Any:
        if all(isinstance(claim, bool) for claim in claims):
            return answer(claims)
        return getattr(_bring_in(SYMBOLIC_SHAPES), question)(*claims)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Importing a module below a stand-in imports the real package first."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        parent = name.rpartition(".")[0]
        if not isinstance(sys.modules.get(parent), _StandIn):
            return None
        _bring_in(parent)
        return importlib.machinery.ModuleSpec(name, self)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return importlib.import_module(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """It was executed when it was imported."""
