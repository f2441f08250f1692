"""What the recurrent stack is made of, layer by layer, with the standard library alone.

`stack.py` builds the layers from this description, and `inspect` prints it without importing torch.

Shape letters: S steps, U width of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from stacklstm_cli.errors import UsageError

Cell = Literal["lstm", "gru", "rnn"]
Residual = Literal["none", "sum", "projection"]

GATES: dict[Cell, int] = {"lstm": 4, "gru": 3, "rnn": 1}
"""Blocks of U rows in the weights of a cell: input, forget, candidate, output; reset, update, candidate; the state."""


@dataclass(frozen=True)
class LayerSpec:
    """One layer: output = residual(x) + RNN(dropout(norm(x)))."""

    name: str
    cell: Cell
    input_size: int
    hidden_size: int
    """U: width of each direction."""
    bidirectional: bool
    dilation: int
    residual: Residual
    layer_norm: bool
    dropout: float
    recurrent_dropout: float
    forget_bias: float

    @property
    def output_size(self) -> int:
        return self.hidden_size * (1 + self.bidirectional)

    @property
    def parameters(self) -> int:
        """Trainable numbers: input weights, state weights and two biases per gate; norm; projection."""
        per_gate = self.hidden_size * (self.input_size + self.hidden_size + 2)
        recurrent = (1 + self.bidirectional) * GATES[self.cell] * per_gate
        norm = 2 * self.input_size if self.layer_norm else 0
        projection = self.input_size * self.output_size if self.residual == "projection" else 0
        return recurrent + norm + projection


@dataclass(frozen=True)
class StackSpec:
    """The recurrent stack. Stored in the model file as a part of the network's description."""

    input_size: int
    """Numbers per step."""
    hidden_sizes: tuple[int, ...]
    """Width of each layer, from the bottom to the top."""
    cell: Cell = "lstm"
    bidirectional: bool = False
    """Every layer also reads the context from its newest step to its oldest; the outputs stand side by side."""
    residual: bool = False
    """From the second layer on, the input of a layer is added to its output, through a projection where their
    widths differ (He et al. 2016, "Deep Residual Learning")."""
    layer_norm: bool = False
    """From the second layer on, the input of a layer is normalised (Ba et al. 2016). The first layer's is not:
    the window is normalised already, and its level and missing places must stay visible. In front of the layer
    and not behind it, so that the sum of a residual stack stays free of norms (Xiong et al. 2020, "On Layer
    Normalization in the Transformer Architecture")."""
    dropout: float = 0.0
    """Share of the inputs of each layer but the first that are dropped, the same ones at every step of a window
    (Gal & Ghahramani 2016, "A Theoretically Grounded Application of Dropout in Recurrent Neural Networks")."""
    recurrent_dropout: float = 0.0
    """Share of the weights from state to state that are dropped, one draw per batch (DropConnect as in Merity et
    al. 2018, "Regularizing and Optimizing LSTM Language Models")."""
    dilations: tuple[int, ...] = ()
    """Steps between a state and the next of its sequence, for each layer; () is 1 for all (Chang et al. 2017,
    "Dilated Recurrent Neural Networks")."""
    forget_bias: float = 0.0
    """What an LSTM's forget gates start with: at 1 they remember until they learn to forget (Gers et al. 2000;
    Jozefowicz et al. 2015, "An Empirical Exploration of Recurrent Network Architectures")."""
    attention: bool = False
    """The decoded state also holds a weighted mean of all outputs (Bahdanau et al. 2015)."""

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> StackSpec:
        """What `vars` gave, lists in place of tuples."""
        tuples = {name: tuple(stored[name]) for name in ("hidden_sizes", "dilations")}
        return cls(**stored | tuples)

    @property
    def output_size(self) -> int:
        """Width of the top layer's outputs, both directions together."""
        return self.hidden_sizes[-1] * (1 + self.bidirectional)

    @property
    def width(self) -> int:
        """Numbers of all layers and directions at one step."""
        return sum(self.hidden_sizes) * (1 + self.bidirectional)

    @property
    def pooled_size(self) -> int:
        """Width of what decodes the horizon: the newest state, and the weighted mean beside it."""
        return self.output_size * (1 + self.attention)

    @property
    def fused(self) -> bool:
        """Whether one kernel of torch computes the whole stack: equal layers with nothing between them."""
        between = self.residual or self.layer_norm or self.dropout > 0
        equal = len(set(self.hidden_sizes)) == 1 and all(dilation == 1 for dilation in self.dilations)
        return equal and not self.recurrent_dropout and (len(self.hidden_sizes) == 1 or not between)

    @property
    def layers(self) -> list[LayerSpec]:
        """From the bottom to the top; what acts between layers does not act on the first."""
        outputs = [width * (1 + self.bidirectional) for width in self.hidden_sizes]
        inputs = [self.input_size, *outputs[:-1]]
        dilations = self.dilations or (1,) * len(self.hidden_sizes)
        return [
            LayerSpec(
                name=f"layer {place + 1}",
                cell=self.cell,
                input_size=inputs[place],
                hidden_size=width,
                bidirectional=self.bidirectional,
                dilation=dilations[place],
                residual=self.residual_kind(inputs[place], outputs[place]) if place else "none",
                layer_norm=self.layer_norm and place > 0,
                dropout=self.dropout if place else 0.0,
                recurrent_dropout=self.recurrent_dropout,
                forget_bias=self.forget_bias,
            )
            for place, width in enumerate(self.hidden_sizes)
        ]

    def explained(self) -> str:
        """The stack in words: "2 LSTM layers of 64, residual"."""
        layers = len(self.hidden_sizes)
        widths = self.hidden_sizes[:1] if len(set(self.hidden_sizes)) == 1 else self.hidden_sizes
        words = f"{layers} {self.cell.upper()} layer{'s' * (layers != 1)} of {listed(widths)}"
        dilated = f"dilations {listed(self.dilations)}" if self.dilations else ""
        flags = {"bidirectional": self.bidirectional, "residual": self.residual and layers > 1}
        flags |= {"layer norm": self.layer_norm and layers > 1, "attention": self.attention, dilated: bool(dilated)}
        return ", ".join([words, *(name for name, there in flags.items() if there)])

    def residual_kind(self, input_size: int, output_size: int) -> Residual:
        if not self.residual:
            return "none"
        return "sum" if input_size == output_size else "projection"

    @property
    def attention_parameters(self) -> int:
        """Trainable numbers of the attention: two matrices, a bias and the vector of scores."""
        return self.hidden_sizes[-1] * (2 * self.output_size + 2) if self.attention else 0


def layer_widths(hidden_size: Sequence[int], layers: int) -> tuple[int, ...]:
    """One width for all layers, or one for each. Raises `UsageError` where the numbers do not fit."""
    if len(hidden_size) == 1:
        return tuple(hidden_size) * layers
    if len(hidden_size) != layers:
        raise UsageError(
            f"--hidden-size has {len(hidden_size)} widths ({listed(hidden_size)}), but --layers is {layers}.",
            hint=f"Give one width for all layers or {layers} widths, or --layers {len(hidden_size)}.",
            code="widths_do_not_fit",
        )
    return tuple(hidden_size)


def check_stack(spec: StackSpec, steps: int) -> None:
    """Raise `UsageError` where the stack does not fit its own options or sequences of `steps` steps."""
    layers = len(spec.hidden_sizes)
    if not layers:
        raise UsageError("The stack has no layers.", hint="Give --hidden-size a width.", code="no_layers")
    if spec.dilations and len(spec.dilations) != layers:
        raise UsageError(
            f"--dilations has {len(spec.dilations)} numbers ({listed(spec.dilations)}), but there are {layers} layers.",
            hint=f"Give {layers} numbers, from the bottom layer to the top one.",
            code="dilations_do_not_fit",
        )
    for place, dilation in enumerate(spec.dilations):
        if dilation < 1:
            raise UsageError(f"--dilations holds {dilation}; expected at least 1.", code="option_out_of_bounds")
        if dilation > 1 and dilation >= steps:
            raise UsageError(
                f"Layer {place + 1} has a dilation of {dilation}, but a context is only {steps} steps long: "
                f"no step would have another {dilation} steps before it.",
                hint=f"Use dilations below {steps}, a longer --context-length or a shorter --patch-length.",
                code="dilation_too_long",
            )
    if spec.dilations and 1 not in spec.dilations and not spec.attention:
        raise UsageError(
            f"--dilations {listed(spec.dilations)} has no layer of dilation 1: the state that decodes the forecast "
            "would never see the step before the newest.",
            hint="Let one layer, as a rule the first, have a dilation of 1, or add --attention.",
            code="dilations_skip_steps",
        )
    if spec.attention and steps < 2:
        raise UsageError(
            f"--attention needs at least 2 steps to choose from, but a context is {steps} step long.",
            hint="Use a longer --context-length or a shorter --patch-length, or leave out --attention.",
            code="attention_over_one_step",
        )


def describe(spec: StackSpec, steps: int) -> list[dict[str, Any]]:
    """One object per layer, and one for the attention, as `inspect` shows them; `steps` is S, of one context."""
    rows: list[dict[str, Any]] = [
        {
            "name": layer.name,
            "cell": layer.cell,
            "input": layer.input_size,
            "output": layer.output_size,
            "parameters": layer.parameters,
            "directions": 1 + layer.bidirectional,
            "dilation": layer.dilation,
            "sequence": -(-steps // layer.dilation),
            "residual": layer.residual,
            "layer_norm": layer.layer_norm,
            "dropout": layer.dropout,
            "recurrent_dropout": layer.recurrent_dropout,
        }
        for layer in spec.layers
    ]
    if spec.attention:
        sizes = {"input": spec.output_size, "output": spec.pooled_size, "parameters": spec.attention_parameters}
        rows.append({"name": "attention", **sizes, "sequence": steps})
    return rows


def listed(numbers: Sequence[int]) -> str:
    return ",".join(str(number) for number in numbers)
