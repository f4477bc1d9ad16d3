"""Case 73, statically: a setting was renamed, one of its readers was not."""

import dataclasses

from tests.saboteurs.sound import Sound


@dataclasses.dataclass
class Schedule:
    """Of the learning rate."""

    warmup_steps: int = 10
    total_steps: int = 100


class ReadsTheOldName(Sound):
    """`warmup` became `warmup_steps`."""

    case = 73
    grade = "wastes"
    says = "warmup"

    def share(self, schedule: Schedule):
        return schedule.warmup / schedule.total_steps
