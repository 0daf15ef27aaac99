"""All personas beside vLLM's, by the name of their engine."""

from collections.abc import Mapping
from typing import Final

from inferwatch_simulator.personas.anthropic import Anthropic
from inferwatch_simulator.personas.base import Persona
from inferwatch_simulator.personas.llamacpp import LlamaCpp
from inferwatch_simulator.personas.managed import OpenAI, TensorRTLLM, Transformers, Triton
from inferwatch_simulator.personas.ollama import Ollama
from inferwatch_simulator.personas.sglang import SGLang
from inferwatch_simulator.personas.tgi import TGI

PERSONAS: Final[Mapping[str, Persona]] = {
    persona.name: persona
    for persona in (
        TGI(),
        SGLang(),
        TensorRTLLM(),
        Triton(),
        LlamaCpp(),
        Ollama(),
        Transformers(),
        Anthropic(),
        OpenAI(),
    )
}
