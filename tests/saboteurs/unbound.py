"""Case 71, statically: the post-mortem's `total_steps`, in a branch that the tiny run never enters."""

from tests.saboteurs.sound import Sound


class AssignsOnOneBranch(Sound):
    """With a schedule the name is assigned, without one it is only used."""

    case = 71
    grade = "wastes"
    says = "total_steps"

    def optimizer(self, model, settings):
        if settings.num_workers > 4:
            self.describe(settings, warmup=False)
        return super().optimizer(model, settings)

    def describe(self, settings, warmup):
        if warmup:
            total_steps = settings.save_every * 10
        print(f"training for {total_steps} steps")
