"""A module of its own, for what is written in it decides how grave the finding is."""

from tests.saboteurs.outsiders import PutsItsAverageIn
from tests.saboteurs.sound import Sound


class FollowsFromALaterStepOn(PutsItsAverageIn):
    """Averages from step 100 on, and evaluates the average before that, too."""

    only = (123,)
    case = 123
    grade = "unclear"
    says = "is of the weights of the start.*where it begins later, evaluate the model itself until then"
    ema_start = 100

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        Sound.step(self, model, optimizer, scaler, batch, settings, number, device)
        if number >= self.ema_start:
            self.follow(model)
