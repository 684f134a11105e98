"""Networks too large for one device: parameters, gradients and optimizer state in shards, one a rank (FSDP2)."""

from collections.abc import Mapping
from typing import Any, cast

import torch
import torch.distributed as dist
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies.strategy import Strategy
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from tutelage.checkpoints.weights import gather_full, shard_like
from tutelage.compat.lightning import ModelParallelOnRanks
from tutelage.compat.torch import broadcast_all_, map_tensors
from tutelage.errors import TutelageError
from tutelage.models.quantised.network import Quantised
from tutelage.runtime import distributed
from tutelage.sources.base import Source

_TARGET = f"{__name__}.Sharded"
_CACHED = "tutelage.sources.cached.Cached"
_PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")


class Sharded(ModelParallelOnRanks):
    """Lightning's strategy for FSDP2, on ranks that :mod:`tutelage.runtime.distributed` has started.

    Every network of a training, a frozen teacher as well as the one that learns, is shared out by ``fully_shard``; a
    rank gathers a block of it for as long as it computes with it. What losses learn is small, may be a scalar and is
    read in many ways: it stays whole on every rank, and its gradients are averaged. Buffers are rank 0's, as under DDP.
    States are saved whole, in the form of any other strategy's: ranks agree on them to the bit when they go on.

    Args:
        block: a block (a child of a ``Sequential`` or ``ModuleList``) with so many parameters that are not in a
            smaller one already is gathered by itself; what is left, together.
    """

    def __init__(self, block: int = 1_000_000):
        super().__init__(tensor_parallel_size=1, save_distributed_checkpoint=False)
        self.block = block

    def check_ranks(self) -> None:
        """Launches nothing.

        Raises:
            TutelageError: there are no ranks.
        """
        if not distributed.is_up():
            raise TutelageError("trainer=fsdp needs ranks started by `tutelage distill`; see trainer.devices")

    def setup_environment(self) -> None:
        """Lays the mesh over all ranks."""
        self.set_data_parallel_size(dist.get_world_size())
        super().setup_environment()

    def share_out(self, learner: Any) -> None:
        """Called by a :class:`~tutelage.training.module.SupervisedModule` once its shapes are known.

        Raises:
            TutelageError: the student is quantised; a loss learns through a parameter of it, of which a rank has a
                shard; or the norm of all gradients is to be clipped where a loss learns as well.
        """
        if read := sorted(name for name in learner.needs.get("student", ()) if "." in name):
            raise TutelageError(
                f"trainer=fsdp: the objective reads {read} of the student, whose parameters are sharded"
            )
        if isinstance(learner.student.net.net, Quantised):
            raise TutelageError("trainer=fsdp: a quantised student needs whole weights; use trainer=ddp")
        for source in learner.sources().values():
            for part in source.modules():
                if isinstance(part, Source) and (net := part.network()) is not None:
                    shard(net.net, self.device_mesh["data_parallel"], self.block)
        learner.student.net.register_forward_hook(_together)
        learned = [parameter for parameter in learner.objective.parameters() if parameter.requires_grad]
        if learned and learner.trainer.gradient_clip_val and learner.trainer.gradient_clip_algorithm != "value":
            raise TutelageError(
                "trainer=fsdp: gradient clipping is not supported when a loss has parameters of its own"
            )
        for parameter in learned:
            parameter.register_post_accumulate_grad_hook(_average)

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """Runs a training step with rank 0's buffers."""
        self._share_buffers()
        return super().training_step(*args, **kwargs)

    def on_validation_start(self) -> None:
        """Copies rank 0's buffers to all ranks before validation."""
        self._share_buffers()

    def _share_buffers(self) -> None:
        if buffers := list(cast(nn.Module, self.lightning_module).buffers()):
            broadcast_all_(buffers)

    # -- states: whole in files ---------------------------------------------------------------------------------------

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Returns the module's state, gathered from all ranks."""
        return {
            name: gather_full(tensor).cpu()
            for name, tensor in cast(nn.Module, self.lightning_module).state_dict().items()
        }

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """Returns an optimizer's state, gathered from all ranks."""
        inner = optimizer.optimizer if isinstance(optimizer, LightningOptimizer) else optimizer
        state: dict[str, Any] = map_tensors(lambda tensor: gather_full(tensor).cpu(), inner.state_dict())
        return state

    @property
    def lightning_restore_optimizer(self) -> bool:
        """By :meth:`load_optimizer_state_dict`."""
        return True

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads the file, on every rank."""
        return Strategy.load_checkpoint(self, checkpoint_path, weights_only)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Every rank takes its shards."""
        module = cast(nn.Module, self.lightning_module)
        mine = module.state_dict()
        state = {name: shard_like(tensor, mine.get(name)) for name, tensor in checkpoint["state_dict"].items()}
        module.load_state_dict(state, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Every rank takes its shards: of what is as large as its parameter."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            for number, values in state["state"].items():
                shape = parameters[number].shape
                for name, value in values.items():
                    if isinstance(value, Tensor) and value.shape == shape:
                        values[name] = shard_like(value, parameters[number])
        Strategy.load_optimizer_state_dict(self, checkpoint)


def shard(net: nn.Module, mesh: DeviceMesh, block: int) -> None:
    """Shares ``net`` out in place: large blocks by themselves, from the inside out, and the rest as one.

    All is one where only a part learns (SimKD): a block is gathered again for its gradients when one reaches what it
    gave, and there they may come in behind that.
    """
    if isinstance(net, FSDPModule):
        return
    net.to(memory_format=torch.contiguous_format)  # FSDP2 cuts along the first dimension
    containers = [module for module in net.modules() if isinstance(module, nn.Sequential | nn.ModuleList)]
    blocks = {child for module in containers for child in module.children() if not isinstance(child, nn.ModuleList)}
    placed: set[nn.Parameter] = set()
    if len({parameter.requires_grad for parameter in net.parameters()}) > 1:
        blocks = set()
    for module in reversed([module for module in net.modules() if module in blocks]):
        left = set(module.parameters()) - placed
        if sum(parameter.numel() for parameter in left) >= block:
            fully_shard(module, mesh=mesh, reshard_after_forward=True)
            placed |= set(module.parameters())  # others by now: shards
    fully_shard(net, mesh=mesh, reshard_after_forward=True)


class _Together(torch.autograd.Function):
    """Identity; where one output has a gradient the others have one of 0."""

    @staticmethod
    def forward(ctx: Any, *signals: Tensor) -> tuple[Tensor, ...]:
        return tuple(signal.view_as(signal) for signal in signals)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, ...]:
        return gradients


def _together(net: nn.Module, inputs: tuple[Tensor, ...], signals: dict[str, Tensor]) -> dict[str, Tensor]:
    """A loss may read taps alone, but the network is gathered for its gradients when one reaches its logits."""
    return dict(zip(signals, _Together.apply(*signals.values()), strict=True))


def _average(parameter: Tensor) -> None:
    assert parameter.grad is not None
    dist.all_reduce(parameter.grad)
    parameter.grad /= dist.get_world_size()


def is_sharded(stage: DictConfig) -> bool:
    """Checks whether the networks of a stage are shared out."""
    strategy = stage.trainer.get("strategy")
    return isinstance(strategy, DictConfig) and strategy.get("_target_") == _TARGET


def prepare(stage: DictConfig) -> None:
    """Fits a stage to ``trainer=fsdp``, if that is its trainer: teachers answer live, in shards, and SGD isn't fused.

    Raises:
        TutelageError: a precision of whole networks, or signals that are to be written, which one device does, with the
            whole teacher.
    """
    if not is_sharded(stage):
        return
    if (precision := stage.trainer.get("precision", "32-true")) not in _PRECISIONS:
        raise TutelageError(f"trainer.precision: trainer=fsdp supports {list(_PRECISIONS)}; found {precision!r}")
    if stage.optimizer.get("_target_") == "torch.optim.SGD" and stage.optimizer.get("fused"):
        stage.optimizer.fused = False  # torch 2.14 has that kernel for whole tensors alone; the same to rounding
    for name, node in stage.sources.items():
        if node.get("_target_") == _CACHED and node.folder is None:
            raise TutelageError(
                f"sources.{name}: trainer=fsdp can't write signals, which needs the whole teacher on one device; "
                "write them first with `tutelage cache trainer.accelerator=cpu`, then use trainer=ddp"
            )
        if "cache" in node:
            node.cache = False
