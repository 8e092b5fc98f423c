"""What makes a run slower than a device's peaks: the host that issues operators, and the part of the peaks that kernels reach. Each
figure has a range and a source."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

from ocr_flops.errors import one_of
from ocr_flops.spec.ranged import Ranged
from ocr_flops.spec.specs import ONE, STAGES, EngineSpec

HOST_FIGURES = ("operator_us", "module_us", "launch_us", "step_us", "kernel_floor_us", "graph_floor_us")
EFFICIENCIES = ("matrix", "vector", "bandwidth")
LEAST_EFFICIENCY = 1e-3


NOTHING = Ranged.exact(0.0)


@dataclass(frozen=True)
class HostSpec:
    """What the host does for every operator and every step, in microseconds.

    Args:
        name: the config's, "eager".
        label: for people.
        graphs: stages that are replayed as one CUDA graph: one launch instead of one for every operator.
        operator_us: Python and dispatcher for one operator.
        module_us: the call of one module that has weights, besides its operators.
        launch_us: the launch of one kernel, or of one graph.
        step_us: what a decode step does besides the model: sampling, bookkeeping, detokenising.
        kernel_floor_us: the least time that an operator's kernel takes of the device.
        graph_floor_us: the same of a kernel in stages that are graphs; how many operators it stands for the engine says.
        waits: whether it waits for every kernel before it issues the next operator, so that their times add; not within a graph.
    """

    name: str
    label: str
    graphs: tuple[str, ...]
    operator_us: Ranged
    module_us: Ranged
    launch_us: Ranged
    step_us: Ranged
    kernel_floor_us: Ranged
    graph_floor_us: Ranged = NOTHING
    waits: bool = False

    def __post_init__(self) -> None:
        for stage in self.graphs:
            one_of("host.graphs", stage, STAGES)
        for name in HOST_FIGURES:
            getattr(self, name).check(f"host.{name}", 0.0, float("inf"))

    def with_figures(self, **figures: float) -> HostSpec:
        """The same host with some figures given exactly, in microseconds; a SpecError names a field that does not exist."""
        return replace(self, **{one_of("host", name, HOST_FIGURES): Ranged.exact(float(value)) for name, value in figures.items()})

    def describe(self) -> str:
        """The figures in a line."""
        if not any(getattr(self, name).high for name in HOST_FIGURES):
            return self.label
        per_module = f" and {self.module_us} a module" if self.module_us.high else ""
        waiting = " and waits for its kernel" if self.waits else ""
        in_graphs = f", in graphs {self.graph_floor_us} µs a kernel" if self.graphs else ""
        return (
            f"{self.label}: {self.operator_us} µs an operator{per_module}{waiting}, {self.launch_us} µs a launch, "
            f"{self.step_us} µs a step, kernels of at least {self.kernel_floor_us} µs{in_graphs}"
        )


@dataclass(frozen=True)
class EfficiencySpec:
    """The part of a device's peaks that kernels reach.

    Args:
        name: the config's, "published".
        label: where the figures come from, for people.
        matrix, vector, bandwidth: of the peak of the matrix units, the vector units and the memory, above 0 and at most 1.
    """

    name: str
    label: str
    matrix: Ranged
    vector: Ranged
    bandwidth: Ranged

    def __post_init__(self) -> None:
        for name in EFFICIENCIES:
            getattr(self, name).check(f"efficiency.{name}", LEAST_EFFICIENCY, 1.0)

    def describe(self) -> str:
        """The figures in a line."""
        figures = ", ".join(f"{name} {getattr(self, name)}" for name in EFFICIENCIES)
        return f"efficiencies from {self.label}: {figures}"


@functools.lru_cache(maxsize=1024)
def describe_basis(host: HostSpec, efficiency: EfficiencySpec, engine: EngineSpec) -> str:
    """What expected times rest on, in a line."""
    own = ""
    if engine.host_operators != ONE and host.operator_us.high:
        own = f", one of the language model taking {engine.host_operators} times as long"
    if engine.operators_a_kernel != ONE and host.graphs:
        own += f"; {engine.operators_a_kernel} operators counted here are a kernel"
    return f"{host.describe()}{own}; {efficiency.describe()}"
