"""The recurrent stack: layers of LSTM, GRU or plain recurrent cells over the steps of a context.

Shape letters: B batch, S steps, F numbers per step, D dilation, U width of a layer, W width of its outputs
(U, or 2U where bidirectional), G gates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from stacklstm_cli.model.dropout import dropout
from stacklstm_cli.model.layers import GATES, Cell, LayerSpec, StackSpec

RNNS: dict[Cell, type[nn.LSTM | nn.GRU | nn.RNN]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
"""The plain cell is Elman's with tanh, which `nn.RNN` has by default."""


class Stack(nn.Module):
    """Recurrent layers on top of each other, and the state that decodes the horizon.

    Equal layers with nothing between them run as one module of torch; any others, layer by layer.
    """

    def __init__(self, spec: StackSpec) -> None:
        super().__init__()
        self.spec = spec
        self.fused = fused_rnn(spec) if spec.fused else None
        self.layers = nn.ModuleList([] if spec.fused else [Layer(layer) for layer in spec.layers])
        self.attention = Attention(spec.output_size, spec.hidden_sizes[-1]) if spec.attention else None

    @property
    def output_size(self) -> int:
        """W of the top layer."""
        return self.spec.output_size

    @property
    def pooled_size(self) -> int:
        """Width of `pooled`: W, or 2W with attention."""
        return self.spec.pooled_size

    def forward(self, steps: Tensor) -> Tensor:
        """[B, S, F] -> [B, S, W], the outputs of the top layer at every step."""
        if self.fused is not None:
            outputs: Tensor = self.fused(steps)[0]  # [B, S, W]
            return outputs
        for layer in self.layers:
            steps = layer(steps)  # [B, S, W]
        return steps

    def pooled(self, outputs: Tensor) -> Tensor:
        """[B, S, W] -> [B, W], with attention [B, 2W]: what decodes the horizon.

        The weighted mean stands beside the newest state instead of in its place: whatever it looks at, every
        step of a forecast still sees the newest value.
        """
        newest = self.newest(outputs)  # [B, W]
        if self.attention is None:
            return newest
        weights: Tensor = self.attention(outputs, newest)  # [B, S]
        mean = (weights.unsqueeze(1) @ outputs).squeeze(1)  # [B, W]
        return torch.cat([newest, mean], -1)  # [B, 2W]

    def newest(self, outputs: Tensor) -> Tensor:
        """[B, S, W] -> [B, W], the state of each direction once it has read the whole context."""
        if not self.spec.bidirectional:
            return outputs[:, -1]
        ahead, back = outputs.chunk(2, dim=-1)  # [B, S, U] each
        return torch.cat([ahead[:, -1], back[:, 0]], -1)  # [B, 2U]

    def attention_weights(self, outputs: Tensor) -> Tensor:
        """[B, S, W] -> [B, S], the weight of each step, 1 in total. Only with attention."""
        if self.attention is None:
            raise ValueError("this stack has no attention")
        weights: Tensor = self.attention(outputs, self.newest(outputs))
        return weights


class Layer(nn.Module):
    """One layer: residual(x) + RNN(dropout(norm(x))).

    Each direction is a module of its own, as each must begin its interleaved sequences at its own end.
    """

    def __init__(self, spec: LayerSpec) -> None:
        super().__init__()
        self.spec = spec
        self.norm = nn.LayerNorm(spec.input_size) if spec.layer_norm else None
        self.ahead = new_rnn(spec.cell, spec.input_size, spec.hidden_size, spec.forget_bias)
        self.back = None
        if spec.bidirectional:
            self.back = new_rnn(spec.cell, spec.input_size, spec.hidden_size, spec.forget_bias)
        self.projection = None
        if spec.residual == "projection":
            self.projection = nn.Linear(spec.input_size, spec.output_size, bias=False)
            nn.init.xavier_uniform_(self.projection.weight)

    def forward(self, steps: Tensor) -> Tensor:
        """[B, S, F] -> [B, S, W]."""
        inner = steps if self.norm is None else self.norm(steps)
        if self.training and self.spec.dropout:
            inner = inner * self.kept(inner)
        outputs = self.recur(self.ahead, inner)  # [B, S, U]
        if self.back is not None:
            back = self.recur(self.back, inner.flip(1)).flip(1)  # [B, S, U]
            outputs = torch.cat([outputs, back], -1)  # [B, S, 2U]
        if self.spec.residual == "none":
            return outputs
        return outputs + (steps if self.projection is None else self.projection(steps))

    def kept(self, steps: Tensor) -> Tensor:
        """Dropout's factors [B, 1, F] for steps [B, S, F]: the same inputs are dropped at every step."""
        return dropout(torch.ones_like(steps[:, :1]), self.spec.dropout)

    def recur(self, rnn: nn.RNNBase, steps: Tensor) -> Tensor:
        """[B, S, F] -> [B, S, U] by h_t = cell(x_t, h_{t-D}), as D interleaved sequences side by side.

        Where D does not divide S, the sequences are filled up behind their last steps and cut again: what
        comes after a step cannot change its state, whereas zeros in front would be read as input.
        """
        dilation = self.spec.dilation
        if dilation == 1:
            return self.run(rnn, steps)
        batch, length, width = steps.shape
        rounds = (length + dilation - 1) // dilation  # ONNX divides negative numbers otherwise
        filled = functional.pad(steps, (0, 0, 0, rounds * dilation - length))  # [B, R * D, F]
        rows = filled.view(batch, rounds, dilation, width).transpose(1, 2).flatten(0, 1)  # [B * D, R, F]
        outputs = self.run(rnn, rows).view(batch, dilation, rounds, -1)  # [B, D, R, U]
        return outputs.transpose(1, 2).flatten(1, 2)[:, :length]  # [B, S, U]

    def run(self, rnn: nn.RNNBase, steps: Tensor) -> Tensor:
        """[B, S, F] -> [B, S, U], in training with some weights from state to state dropped (DropConnect)."""
        if self.training and self.spec.recurrent_dropout:
            kept = dropout(rnn.get_parameter("weight_hh_l0"), self.spec.recurrent_dropout)  # [G * U, U]
            outputs: Tensor = torch.func.functional_call(rnn, {"weight_hh_l0": kept}, steps)[0]  # [B, S, U]
        else:
            outputs = rnn(steps)[0]  # [B, S, U]
        return outputs


class Attention(nn.Module):
    """Additive scores of every output against the newest state, made weights by a softmax.

    score_s = v · tanh(K h_s + Q newest + b)    (Bahdanau et al. 2015, "Neural Machine Translation by Jointly
    Learning to Align and Translate")
    """

    def __init__(self, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.key = nn.Linear(input_size, hidden_size, bias=False)
        self.query = nn.Linear(input_size, hidden_size)
        self.score = nn.Linear(hidden_size, 1, bias=False)  # a bias would move all scores alike
        for linear in (self.key, self.query, self.score):
            nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(self.query.bias)

    def forward(self, outputs: Tensor, newest: Tensor) -> Tensor:
        """Outputs [B, S, W] and newest state [B, W] -> weights [B, S]."""
        hidden = torch.tanh(self.key(outputs) + self.query(newest).unsqueeze(1))  # [B, S, U]
        scores: Tensor = self.score(hidden).squeeze(-1)  # [B, S]
        return scores.softmax(-1)


def fused_rnn(spec: StackSpec) -> nn.RNNBase:
    """All layers as one module."""
    width, layers = spec.hidden_sizes[0], len(spec.hidden_sizes)
    return new_rnn(
        spec.cell, spec.input_size, width, spec.forget_bias, num_layers=layers, bidirectional=spec.bidirectional
    )


def new_rnn(
    cell: Cell,
    input_size: int,
    hidden_size: int,
    forget_bias: float,
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
) -> nn.RNNBase:
    """Recurrent layers with their starting weights."""
    rnn = RNNS[cell](input_size, hidden_size, num_layers, batch_first=True, bidirectional=bidirectional)
    start_weights(rnn, cell, forget_bias)
    return rnn


@torch.no_grad()
def start_weights(rnn: nn.RNNBase, cell: Cell, forget_bias: float) -> None:
    """Set the weights to their start, gate by gate.

    From state to state orthogonal, so that a state neither grows nor fades (Saxe et al. 2014); from the input
    uniform with the variance of Glorot & Bengio 2010; biases zero but the forget gate's.
    """
    for name, parameter in rnn.named_parameters():
        for place, block in enumerate(parameter.chunk(GATES[cell])):  # each [U, F], [U, U] or [U]
            if name.startswith("weight_hh"):
                nn.init.orthogonal_(block)
            elif name.startswith("weight_ih"):
                nn.init.xavier_uniform_(block)
            else:
                forget = cell == "lstm" and place == 1 and name.startswith("bias_ih")
                nn.init.constant_(block, forget_bias if forget else 0.0)
