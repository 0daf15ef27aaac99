"""What stands around a model and says of itself what it is: engine, weights, driver. It is no evidence; but when the
canary shows a change, it is what one asks first.
"""

from inferwatch_collectors import metrics as m
from inferwatch_collectors.engine.said import Said
from inferwatch_collectors.metric_store import MetricStore


def around(store: MetricStore, engine: str, said: Said, model: str) -> dict[str, str]:
    """Return what -> its name, of what is known."""
    served = said.of(model)
    tokens = f" of {served.max_tokens} tokens" if served.max_tokens else ""
    drivers = sorted({labels[4] for labels in store.series(m.GPU_INFO) if store.gauge(m.GPU_INFO, labels).value})
    found = {
        # Without its name, before it was met, it would look like another one.
        "engine": f"{engine} {said.version}" if engine and said.version else "",
        "weights": f"{served.root}{tokens}" if served.root else "",
        "driver": ", ".join(each for each in drivers if each),
    }
    return {what: name for what, name in found.items() if name}
