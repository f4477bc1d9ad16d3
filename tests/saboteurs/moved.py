"""Case 71, statically: a block moved above the line that its name comes from."""

from tests.saboteurs.sound import Sound


class UsesBeforeItAssigns(Sound):
    """The warm-up was moved up, the line that counts the steps was not."""

    case = 71
    grade = "wastes"
    says = "total_steps"

    def schedule(self, rows, settings):
        warmup = total_steps // 10
        total_steps = len(rows) // settings.batch_size
        return warmup, total_steps
