"""What is said of signals."""

from types import SimpleNamespace
from typing import Any

from residual.analysis.layers import Signal
from residual.reproduce.layer_studies import signal_sentences


def test_large_numbers_are_written_out() -> None:
    signals = [Signal("first", 2.0, 1.0, 972.0), Signal("last", 2.0, 0.63, 0.1)]
    run: Any = SimpleNamespace(label="plain-56")
    (said,) = signal_sentences([(run, {"at initialisation": signals})])
    assert said == (
        "plain-56 at initialisation: forward signals have non-zero variances (at least 0.63); gradients do "
        "not vanish (norms between 1 and 9,700 times the last layer's)"
    )
