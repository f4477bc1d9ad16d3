"""Many saves, of which a few are kept (`eleven-saves`)."""

import shutil

from tests.saboteurs.sound import Sound


class KeepsThree(Sound):
    """Removes all but the newest three, by step, once the new one has its name."""

    only = ("eleven-saves",)

    def save(self, output_dir, state):
        super().save(output_dir, state)
        for old in self.in_order(output_dir)[:-3]:
            shutil.rmtree(old)

    def in_order(self, output_dir):
        return self.saved(output_dir)[::-1]


class PrunesByName(KeepsThree):
    """Sorts names: 10 comes before 9."""

    only = ()
    case = "eleven-saves"
    grade = "loses"
    says = "it saved last after step 11, and the second start took 4 steps, where 2 were left"

    def in_order(self, output_dir):
        return sorted(self.saved(output_dir), key=lambda path: path.name)


class ResumesByName(Sound):
    """Keeps all, and takes the last of them by name."""

    case = "eleven-saves"
    grade = "loses"
    says = "it saved last after step 11, and the second start took 4 steps, where 2 were left"

    def saved(self, output_dir):
        return sorted(super().saved(output_dir), key=lambda path: path.name, reverse=True)


class MakesRoomFirst(KeepsThree):
    """A run keeps three at most: it removes all others before it begins with another three."""

    only = ()
    case = "eleven-saves"
    grade = "loses"
    says = "it carried on from an older state"

    def save(self, output_dir, state):
        Sound.save(self, output_dir, state)
        found = self.in_order(output_dir)
        for new in found[3:]:  # the first three were good
            shutil.rmtree(new)


class PadsItsNumbers(KeepsThree):
    """Sorts names, and may: they are all of one length."""

    only = ("eleven-saves",)

    def save(self, output_dir, state):
        Sound.save(self, output_dir, state)
        (output_dir / f"checkpoint-{state['step']}").rename(output_dir / f"checkpoint-{state['step']:06}")
        for old in sorted(output_dir.glob("checkpoint-*"))[:-3]:
            shutil.rmtree(old)
