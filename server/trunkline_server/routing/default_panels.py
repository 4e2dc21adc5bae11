"""The panels that are there without being configured, over whatever models are enabled.

`waymark-fast` asks one model, the promptest; `waymark-moa` three, with an eye on the cost; `waymark-max` six, after a
critique. Each moves up to the next when its answer is not good enough.
"""

from typing import Final

from trunkline.v1.completion_spec_pb2 import OptimizeFor
from trunkline_server.core.panels import PanelRules, Trigger
from trunkline_server.routing.catalog import Route

POOR: Final = frozenset({Trigger.REFUSAL, Trigger.EMPTY, Trigger.CUT, Trigger.INVALID_OUTPUT})

DEFAULT_PANELS: Final = (
    Route(
        "waymark-fast",
        (),
        label="Waymark fast",
        description="One model, the promptest; the panel waymark-moa where its answer is not good enough.",
        panel=PanelRules(
            size=1,
            quorum=1,
            optimize_for=OptimizeFor.OPTIMIZE_FOR_LATENCY,
            escalate_to="waymark-moa",
            escalate_on=POOR,
        ),
    ),
    Route(
        "waymark-moa",
        (),
        label="Waymark mixture",
        description="Three models answer, and one makes the answer of theirs.",
        panel=PanelRules(
            size=3,
            quorum=2,
            stops_early=True,
            optimize_for=OptimizeFor.OPTIMIZE_FOR_BALANCED,
            escalate_to="waymark-max",
            escalate_on=POOR | {Trigger.DISAGREEMENT},
        ),
    ),
    Route(
        "waymark-max",
        (),
        label="Waymark widest mixture",
        description="Six models answer, their answers are compared, and one makes the answer of theirs.",
        panel=PanelRules(
            size=6,
            quorum=4,
            critiques=True,
            optimize_for=OptimizeFor.OPTIMIZE_FOR_ACCURACY,
        ),
    ),
)
