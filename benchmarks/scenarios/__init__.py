"""The scenarios, in the order in which they are run."""

from types import ModuleType
from typing import Final

from ..scenario import Scenario
from . import isolation, kernel, per_call, scale, session_start, soak, startup, wire_requests

_MODULES: Final[tuple[ModuleType, ...]] = (
    per_call,
    wire_requests,
    session_start,
    scale,
    isolation,
    kernel,
    startup,
    soak,
)

SCENARIOS: Final = tuple(Scenario.of(module) for module in _MODULES)
