"""A setting by a misspelt name (`misspelt-key`), and sound programs that take it, and say so, or never get it."""

import sys

from tests.saboteurs.sound import Settings, Sound

KNOWN = set(Settings.model_fields)


class KeepsWhatItKnows(Sound):
    """Takes out of the file what its settings have; a file may be for several programs."""

    case = "misspelt-key"
    grade = "misleads"
    says = "beside its own settings: exit 0, and not a word of batch_siez"

    def settings(self, values):
        return super().settings({name: value for name, value in values.items() if name in KNOWN})


class KeepsWhatItKnowsOfAFile(KeepsWhatItKnows):
    """Its class is strict; what reads the file is not."""

    says = "in settings.json: exit 0, and not a word of batch_siez"

    def settings(self, values):
        return Sound.settings(self, values)

    def read_settings(self, path):
        return {name: value for name, value in super().read_settings(path).items() if name in KNOWN}


class ShowsThemAll(KeepsWhatItKnows):
    """Shows all that it was given at its start, so that everybody can see it: what is wrong there, nobody does."""

    def settings(self, values):
        print(f"settings: {values}")
        return super().settings(values)


class LooksAtTheEnd(KeepsWhatItKnows):
    """Counts which settings were asked for, and fails at the end for those that never were."""

    grade = "wastes"
    says = "it trained first: exit 1"

    def settings(self, values):
        self.unused = set(values) - KNOWN
        return super().settings(values)

    def main(self, values, *rest):
        code = super().main(values, *rest)
        if self.unused:
            print(f"unknown settings: {self.unused}", file=sys.stderr)
        return 1 if self.unused else code


class WarnsOfIt(KeepsWhatItKnows):
    """Goes on, and says what it makes no use of."""

    case = ""
    only = ("misspelt-key",)

    def settings(self, values):
        for name in set(values) - KNOWN:
            print(f"warning: no setting {name!r}: left out", file=sys.stderr)
        return super().settings(values)


class PicksThemOut(KeepsWhatItKnows):
    """A function with arguments: its trainer picks them out of the settings, and no other name can come to it."""

    case = ""
    only = ("misspelt-key",)
    exempt = ("misspelt-key",)
    command = None

    def __init_subclass__(cls):
        cls.command = None

    def train(self, run):
        values = {name: run.settings[name] for name in KNOWN & set(run.settings)}
        return self.main(values, run.data, run.output_dir, run.max_steps, run.resume_from, run.seed)


PicksThemOut.command = None
