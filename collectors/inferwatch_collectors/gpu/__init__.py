"""GPUs: read in a thread of its own, watched from the loop, exported from the last reading.

`base` is what a vendor's library has to be turned into; `nvml` and `amd` do that; `worker` is the thread, `sampler` the
watchdog; `exporter` turns readings into metrics; `monitor` is the whole as the collector has it.
"""
