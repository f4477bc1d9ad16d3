"""Case 76, statically: the post-mortem's `num_train_epochs=None`."""

from tests.saboteurs.sound import Sound


def steps_in_all(rows: int, num_train_epochs: float = 3.0) -> int:
    """A library's function, which compares what it is given with 0."""
    return int(rows * num_train_epochs) if num_train_epochs > 0 else 0


class PassesNone(Sound):
    """`max_steps` decides, so the epochs are set to None; the library does not take that."""

    case = 76
    grade = "wastes"
    says = "None"

    def plan(self, rows):
        return steps_in_all(len(rows), num_train_epochs=None)
