"""An engine that computes: the simulator's HTTP side and scheduler, and a real decoder on a GPU for each of its steps.

    python -m bench.gpu_engine --port 8000

A Llama-shaped decoder with random weights: every step multiplies the batch's tokens through all layers, attends over
the keys and values of each sequence, and makes logits, in bfloat16. So the GPU draws what such a model draws, and a
step takes what it takes. The text of the answers is the simulator's: random weights have nothing to say.
"""

import argparse
import asyncio
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name

from inferwatch_simulator import server
from inferwatch_simulator.config import SimulatorConfig
from inferwatch_simulator.engine import Engine
from inferwatch_simulator.scheduler import Sequence, Step


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder: by default those of Llama 3.1 8B, with room for 64 sequences of 2,048 tokens."""

    layers: int = 32
    width: int = 4096
    heads: int = 32
    kv_heads: int = 8
    inner: int = 14_336
    vocabulary: int = 128_256
    slots: int = 64
    tokens: int = 2048

    @property
    def head(self) -> int:
        return self.width // self.heads


SMALL = Shape(layers=2, width=64, heads=4, kv_heads=2, inner=128, vocabulary=512, slots=64, tokens=2048)


class Decoder:
    """The weights, and the keys and values of the sequences under way. All methods run on one thread."""

    def __init__(self, shape: Shape, device: str) -> None:
        self.shape = shape
        self._device = device
        kind: dict[str, Any] = {"device": device, "dtype": torch.bfloat16}
        both = (shape.heads + 2 * shape.kv_heads) * shape.head
        scale = shape.width**-0.5

        def weights(*size: int) -> torch.Tensor:
            return torch.randn(*size, **kind) * scale

        self._layers = [
            (
                weights(shape.width, both),
                weights(shape.width, shape.width),
                weights(shape.width, 2 * shape.inner),
                weights(shape.inner, shape.width),
            )
            for _ in range(shape.layers)
        ]
        self._embedding = weights(shape.vocabulary, shape.width)
        room = (shape.layers, shape.slots, shape.kv_heads, shape.tokens, shape.head)
        self._keys = torch.zeros(room, **kind)
        self._values = torch.zeros(room, **kind)
        self._slots: dict[int, int] = {}
        self._free = list(range(shape.slots))

    def compute(self, prefills: list[tuple[Sequence, int]], decodes: list[Sequence]) -> None:
        """Compute one step and wait for the device."""
        with torch.inference_mode():
            for sequence, tokens in prefills:
                self._prefill(sequence, tokens)
            if decodes:
                self._decode(decodes)
        if self._device != "cpu":
            torch.cuda.synchronize()

    def forget(self, running: set[int]) -> None:
        """Free the slots of all but the sequences `running`."""
        for key in [key for key in self._slots if key not in running]:
            self._free.append(self._slots.pop(key))

    def _slot(self, sequence: Sequence) -> int:
        slot = self._slots.get(sequence.key)
        if slot is None:
            slot = self._slots[sequence.key] = self._free.pop()
        return slot

    def _prefill(self, sequence: Sequence, tokens: int) -> None:
        slot, start = self._slot(sequence), min(sequence.computed, self.shape.tokens - tokens)
        hidden = self._embedding[torch.randint(self.shape.vocabulary, (tokens,), device=self._device)]
        for number in range(self.shape.layers):
            query, key, value = self._project(number, hidden)
            keys, values = self._keys[number, slot], self._values[number, slot]
            keys[:, start : start + tokens] = key.transpose(0, 1)
            values[:, start : start + tokens] = value.transpose(0, 1)
            attended = F.scaled_dot_product_attention(
                query.transpose(0, 1)[None],
                keys[None, :, : start + tokens],
                values[None, :, : start + tokens],
                is_causal=start == 0,
                enable_gqa=True,
            )
            hidden = self._finish(number, hidden, attended[0].transpose(0, 1).reshape(tokens, -1))
        self._logits(hidden[-1:])

    def _decode(self, sequences: list[Sequence]) -> None:
        count = len(sequences)
        slots = torch.tensor([self._slot(sequence) for sequence in sequences], device=self._device)
        longest = min(self.shape.tokens, max(sequence.total_tokens for sequence in sequences))
        places = torch.tensor([min(s.total_tokens, self.shape.tokens) - 1 for s in sequences], device=self._device)
        hidden = self._embedding[torch.randint(self.shape.vocabulary, (count,), device=self._device)]
        for number in range(self.shape.layers):
            query, key, value = self._project(number, hidden)
            self._keys[number, slots, :, places] = key
            self._values[number, slots, :, places] = value
            attended = F.scaled_dot_product_attention(
                query[:, :, None],
                self._keys[number, slots, :, :longest],
                self._values[number, slots, :, :longest],
                enable_gqa=True,
            )
            hidden = self._finish(number, hidden, attended.reshape(count, -1))
        self._logits(hidden)

    def _project(self, number: int, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        shape = self.shape
        both = (F.rms_norm(hidden, (shape.width,)) @ self._layers[number][0]).view(len(hidden), -1, shape.head)
        query, key, value = both.split((shape.heads, shape.kv_heads, shape.kv_heads), dim=1)
        return query, key, value

    def _finish(self, number: int, hidden: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        _, out, up, down = self._layers[number]
        hidden = hidden + attended @ out
        gate, inner = (F.rms_norm(hidden, (self.shape.width,)) @ up).chunk(2, dim=-1)
        return hidden + (F.silu(gate) * inner) @ down

    def _logits(self, hidden: torch.Tensor) -> None:
        (hidden @ self._embedding.T).argmax(dim=-1)


class GpuEngine(Engine):
    """The simulated engine with steps that are computed, one at a time on a thread, and end when they end."""

    def __init__(self, config: SimulatorConfig, decoder: Decoder) -> None:
        super().__init__(config)
        self._decoder = decoder
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gpu")

    def _begin_step(self, step: Step, now_s: float) -> asyncio.Handle:
        running = {sequence.key for sequence in self.scheduler.running}
        computed = self._loop.run_in_executor(self._thread, self._compute, step, running)
        # The handle is only there to be cancelled at the end; the step ends by the future.
        computed.add_done_callback(self._computed)
        return self._loop.call_later(3600, self._end_step)

    def _computed(self, done: asyncio.Future[None]) -> None:
        if not done.cancelled():
            done.result()  # a fault of the decoder's is told, and no step follows
            self._end_step()

    def _compute(self, step: Step, running: set[int]) -> None:
        self._decoder.forget(running)
        self._decoder.compute(step.prefills, step.decodes)

    def _end_step(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        super()._end_step()


def main() -> int:
    """Serve until told to stop."""
    # cuDNN makes a plan for each length of the keys anew, and every step has another.
    torch.backends.cuda.enable_cudnn_sdp(False)
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_engine", description="An engine that computes.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a try with a tiny decoder")
    options = parser.parse_args()
    shape = SMALL if options.device == "cpu" else Shape()
    decoder = Decoder(shape, options.device)
    config = SimulatorConfig(
        host="127.0.0.1",
        port=options.port,
        model="random-8b",
        max_num_seqs=shape.slots,
        kv_tokens=shape.slots * shape.tokens,
        max_model_len=shape.tokens,
    )
    server.run(config, lambda config: GpuEngine(config, decoder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
