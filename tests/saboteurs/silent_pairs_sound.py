"""Sound programs that look as if they erred in silence where two runs are held against each other."""

import torch

from tests.saboteurs.silent_pairs import Averages, Normed
from tests.saboteurs.sound import Rows, Sound


class ExchangesByArithmetic(Averages):
    """Moves its weights to the average and back again along the line between them, which is not exact."""

    def validate(self, model, *rest):
        with torch.no_grad():
            pairs = list(zip(model.parameters(), self.average.parameters(), strict=True))
            for now, mean in pairs:
                now.lerp_(mean, 0.5)
            best = Sound.validate(self, model, *rest)
            for now, mean in pairs:
                now.lerp_(mean, 1 - 1 / 0.5)
        return best


class TakesItsStatisticsAnew(Normed):
    """Takes the norms' statistics anew before it validates, of rows that it trains on."""

    def fit(self, settings, rows, *rest):
        self.rows = rows
        super().fit(settings, rows, *rest)

    def validate(self, model, *rest):
        x = torch.stack([x for x, _ in Rows(self.rows, self.max_length)])
        with torch.no_grad(), torch.random.fork_rng():
            model(x)
        return super().validate(model, *rest)


class ValidatesOnADraw(Sound):
    """Draws the rows that it validates on from the random state that dropout uses, and lowers its rate when stuck."""

    only = (108,)

    def fit(self, settings, *rest):
        self.rate = settings.learning_rate
        super().fit(settings, *rest)

    def optimizer(self, model, settings):
        self.stepped = super().optimizer(model, settings)
        self.waits = torch.optim.lr_scheduler.ReduceLROnPlateau(self.stepped, patience=0, factor=0.5)
        return self.stepped

    def validate(self, model, *rest):
        self.validation = [self.validation[row] for row in torch.randperm(len(self.validation)).tolist()]
        best = super().validate(model, *rest)
        self.waits.step(1.0)
        return best
