"""Case 76, statically: a parameter was added, one of the calls was not changed."""

from tests.saboteurs.sound import Sound


class ForgetsAnArgument(Sound):
    """Called once in a while only, in the middle of the night."""

    case = 76
    grade = "wastes"
    says = "seed"

    def evaluate(self, rows, settings, seed):
        return len(rows) + settings.batch_size + seed

    def at_the_end(self, rows, settings):
        return self.evaluate(rows, settings)
