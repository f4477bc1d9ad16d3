"""Case 71, statically: a name that only a loop assigns, told after it."""

from tests.saboteurs.sound import Sound


class TellsTheLastRow(Sound):
    """Rows that are empty are rejected elsewhere, so that the loop has a turn: whoever reads this alone cannot know."""

    case = 71
    grade = "unclear"
    says = "where the loop that assigns the name has no turn"

    def optimizer(self, model, settings):
        if settings.num_workers > 4:
            self.describe(model)
        return super().optimizer(model, settings)

    def describe(self, model):
        for name, parameter in model.named_parameters():
            told = f"{name}: {tuple(parameter.shape)}"
        print(told)
