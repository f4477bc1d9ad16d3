"""Case 72, statically: a block moved to another function, one of its names left behind."""

from tests.saboteurs.sound import Sound


class LeavesANameBehind(Sound):
    """`tokenizer` was a local of the function that this came from."""

    case = 72
    grade = "wastes"
    says = "tokenizer"

    def decode(self, output):
        return tokenizer.decode(output)
