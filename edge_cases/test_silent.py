"""Cases 101 to 125: silent errors, found in an undisturbed run that is looked at closely.

Nothing goes wrong that anybody would notice: the run ends, the loss went down, and the model is wrong.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from pytest_trainguard import CannotJudge, CloseLook, Finding, NotApplicable, Outcome, edge_case, noting
from pytest_trainguard.casework.silent import (
    accumulation,
    averages,
    gradients,
    losses,
    modes,
    movement,
    order,
    packs,
    padding,
    pairing,
    reading,
    reports,
    rounding,
    rows,
    saves,
    schedules,
    seeds,
    supervision,
    traces,
    validation,
)
from pytest_trainguard.casework.silent.look import Look, Problems

LOOKED = "nothing: a run of 9 steps and 3 batches an epoch, in which {} looked at"


def judge(close_look: CloseLook, find: Callable[[Look], Problems], *, accumulating: bool = False) -> None:
    """Hold the plain run against what a case knows."""
    close_look.judge(lambda recording: find(Look(recording)), accumulating=accumulating)


def tell(outcome: Outcome, problems: Problems) -> None:
    """Raise the first of what was found by holding two runs against each other; nothing where nothing was."""
    if problems:
        raise Finding(outcome.did, problems[0].said, grade=problems[0].grade)


@edge_case(
    "unmoved-parameter",
    number=101,
    title="a parameter that never moves",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("each parameter, its gradients and the optimizer that holds it are"),
    expects="moves everything that requires a gradient, gets one and is meant to train",
)
def test_unmoved_parameter(close_look: CloseLook) -> None:
    """The adapters were made after the optimizer: the loss curves were lively, and what was saved was the start."""
    judge(close_look, movement.find_unmoved)


@edge_case(
    "no-supervision",
    number=102,
    title="batches or texts in which no target counts",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("each loss's targets, and which of them it ignores, are"),
    expects="trains on batches, and on texts, in which something is to be learnt, their end too",
)
def test_no_supervision(close_look: CloseLook) -> None:
    """The answer began with another token than the template's: each label was -100, and the loss 0."""
    with noting():
        judge(close_look, supervision.find_endless)
    judge(close_look, supervision.find_unsupervised)


@edge_case(
    "loss-not-of-the-data",
    number=103,
    title="a loss that does not come from the data",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("each output, its target and the graph of each loss are"),
    expects="holds each row's output against its own target, pixel by pixel, and each token's against the next one, "
    "which it has not read",
)
def test_loss_not_of_the_data(close_look: CloseLook) -> None:
    """[n, 1] minus [n] is [n, n]: each prediction was held against every target, and the model learnt their mean."""
    with noting(), contextlib.suppress(NotApplicable):  # each row may be one long text
        judge(close_look, pairing.find_other_targets)
        judge(close_look, pairing.find_other_tokens)
        judge(close_look, pairing.find_turned_apart)
    with noting():
        judge(close_look, pairing.find_read_ahead)
    judge(close_look, losses.find_detached)


@edge_case(
    "probabilities-as-logits",
    number=104,
    title="probabilities where logits belong",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("the arguments of torch's loss functions, and what made them, are"),
    expects="gives each loss function what it takes: logits, or the logarithms of probabilities",
)
def test_probabilities_as_logits(close_look: CloseLook) -> None:
    """The model ended in a softmax and the loss began with one: it could not come below 0.74, and was called learnt."""
    judge(close_look, losses.find_probabilities)


@edge_case(
    "accumulation-changes-the-gradient",
    number=105,
    title="accumulation that changes the gradient",
    verdict="survives",
    severity="misleads",
    brought_about="the rows of a step in several parts and at once, without dropout; the first gradient is compared",
    expects="steps with the same gradient, however many parts the rows of a step are dealt out in",
)
def test_accumulation_changes_the_gradient(close_look: CloseLook) -> None:
    """The loss was not divided by the parts: on four times as many, everything was learnt at four times the rate."""
    parts, whole = close_look.in_parts_and_whole()
    tell(whole, accumulation.find_other_sum(Look(parts.recording), Look(whole.recording)))


@edge_case(
    "gradients-left-over",
    number=106,
    title="gradients left over from the step before",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("the gradients at the start of each backward pass are"),
    expects="begins each optimizer step with gradients of zero",
)
def test_gradients_left_over(close_look: CloseLook) -> None:
    """No zero_grad: each step went the way of all steps before it, and only a low learning rate hid that."""
    judge(close_look, gradients.find_left_over, accumulating=True)


@edge_case(
    "wrong-mode",
    number=107,
    title="training or evaluation in the wrong mode",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("the mode of each module in forward passes with and without gradients is"),
    expects="trains in training mode and evaluates in evaluation mode",
)
def test_wrong_mode(close_look: CloseLook) -> None:
    """After the first validation the model stayed in evaluation mode: no dropout for the rest of the month."""
    judge(close_look, modes.find_wrong_modes)


@edge_case(
    "evaluation-leaves-a-trace",
    number=108,
    title="an evaluation that changes what is trained",
    verdict="survives",
    severity="misleads",
    brought_about="nothing: the same run with evaluations between some steps, and with none; what trains is compared",
    expects="leaves weights, statistics, gradients and optimizer after an evaluation as they were before it",
)
def test_evaluation_leaves_a_trace(close_look: CloseLook) -> None:
    """The averaged weights were put in for each validation, and never taken out: the average trained on."""
    evaluated, alone = close_look.with_and_without_evaluations()
    tell(alone, traces.find_traces(Look(evaluated.recording), Look(alone.recording)))


@edge_case(
    "frozen-moves",
    number=109,
    title="frozen weights or statistics that move",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("each frozen parameter, and the statistics of frozen norms, are"),
    expects="leaves what is frozen as it was, the running statistics of frozen norms included, and freezes what it "
    "says",
)
def test_frozen_moves(close_look: CloseLook) -> None:
    """The backbone's weights were frozen and its batch norm was not: each epoch it was another backbone."""
    with noting():
        judge(close_look, movement.find_misnamed)
    judge(close_look, movement.find_thawed)


@edge_case(
    "evaluated-on-training-rows",
    number=110,
    title="evaluated on the rows that it trains on",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("each row is recognised in training and in evaluation, and is"),
    expects="evaluates on rows that it does not train on",
)
def test_evaluated_on_training_rows(close_look: CloseLook) -> None:
    """The path of the training file stood in both places: the validation loss was the best that anybody had seen."""
    held_out = close_look.holds_out
    close_look.judge(lambda recording: order.find_shared_rows(Look(recording), held_out=held_out))


@edge_case(
    "same-order-each-epoch",
    number=111,
    title="every epoch in the same order",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("each row is recognised where it goes into the model, and the order of two epochs is"),
    expects="puts the rows into other batches in each epoch, and may draw each of them",
)
def test_same_order_each_epoch(close_look: CloseLook) -> None:
    """The sampler was seeded with the run's seed and never told the epoch: each epoch had the batches of the first."""
    with noting():
        judge(close_look, order.find_undrawn)
    judge(close_look, order.find_same_order)


@edge_case(
    "reading-writes",
    number=112,
    title="rows that change as they are read",
    verdict="survives",
    severity="misleads",
    brought_about="nothing: rows are read three times under one random state, in a copy of the process",
    expects="reads the same row each time, and leaves what it keeps as it is",
)
def test_reading_writes(close_look: CloseLook) -> None:
    """`x /= 255` in `__getitem__`: with workers each epoch began with a fresh copy, without them all went to 0."""
    judge(close_look, reading.find_written)


@edge_case(
    "workers-double-rows",
    number=113,
    title="rows that come once for each worker",
    verdict="survives",
    severity="misleads",
    brought_about="nothing: the same run without processes that read data, and with two; each row is recognised",
    expects="trains on each row once an epoch, however many processes read them",
)
def test_workers_double_rows(close_look: CloseLook) -> None:
    """A stream was read by eight workers, all of it by each: an epoch was eight, and the curve looked splendid."""
    alone, workers = close_look.with_workers()
    tell(workers, order.find_doubled(Look(alone.recording), Look(workers.recording)))


@edge_case(
    "padding-counts",
    number=114,
    title="padding counts",
    verdict="survives",
    severity="misleads",
    brought_about="the same run with the rows of some steps padded further, without dropout and with each step undone",
    expects="has the same loss and gradient, whatever a row is padded to",
)
def test_padding_counts(close_look: CloseLook) -> None:
    """The mean was taken over all positions: what a text was worth hung on the longest one beside it."""
    still, padded = close_look.with_changed_batches()
    tell(padded, padding.find_counted(Look(still.recording), Look(padded.recording)))


@edge_case(
    "order-in-a-batch-counts",
    number=115,
    title="the order of rows within a batch counts",
    verdict="survives",
    severity="misleads",
    brought_about="the same run, without dropout, with the rows of its first step's batches in another order; one row "
    "replaced by another, in a copy of the process",
    expects="has the same loss and gradient, whatever place a row has in its batch, and the same output beside others",
)
def test_order_in_a_batch_counts(close_look: CloseLook) -> None:
    """`view` in the place of `transpose`: the shapes were right, and each row was made of pieces of its neighbours."""
    still, turned = close_look.with_changed_batches()
    mixed = rows.find_mixed(Look(still.recording))
    # What was seen of each row alone says enough where nobody knows how to put them into another order.
    with contextlib.suppress(NotApplicable) if mixed is not None else contextlib.nullcontext():
        tell(turned, rows.find_ordered(Look(still.recording), Look(turned.recording)))
    tell(still, mixed or [])


@edge_case(
    "packed-neighbours-leak",
    number=116,
    title="a packed document reads its neighbour",
    verdict="survives",
    severity="misleads",
    brought_about="the first document of packed rows replaced in a step, without dropout and with each step undone",
    expects="has the same loss of a document, whatever stands beside it in its row",
)
def test_packed_neighbours_leak(close_look: CloseLook) -> None:
    """Positions began anew with each document, and attention went on: answers were learnt from other questions."""
    still, replaced = close_look.with_changed_batches()
    tell(replaced, packs.find_leaks(Look(still.recording), Look(replaced.recording)))


@edge_case(
    "schedule-out-of-step",
    number=117,
    title="a learning rate schedule out of step",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("each step of an optimizer and of a schedule is"),
    expects="steps the schedule with its own optimizer, and learns until the last step",
)
def test_schedule_out_of_step(close_look: CloseLook) -> None:
    """The schedule was stepped with each micro-batch: at a quarter of the run the learning rate was 0."""
    judge(close_look, schedules.find_out_of_step, accumulating=True)


@edge_case(
    "step-rounded-off",
    number=118,
    title="a step that is rounded off",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("each weight of 16 bits before and after a step, and the optimizer's counter, are"),
    expects="keeps weights in a dtype in which a step arrives, and counts its steps in one that can",
)
def test_step_rounded_off(close_look: CloseLook) -> None:
    """All in bfloat16, to save memory: at 1e-5 almost every update was smaller than half of the last bit."""
    judge(close_look, rounding.find_rounded_off)


@edge_case(
    "clipping-without-effect",
    number=119,
    title="clipping without effect",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("the norm of what was clipped is, as it is stepped with,"),
    expects="clips the gradients that it steps with, unscaled, to the norm that is set",
)
def test_clipping_without_effect(close_look: CloseLook) -> None:
    """Clipped before it was unscaled: at a scale of 65,536 every update was 65,536 times too small."""
    judge(close_look, gradients.find_unclipped, accumulating=True)


@edge_case(
    "reported-loss-is-another",
    number=120,
    title="a reported loss that is not the loss",
    verdict="survives",
    severity="misleads",
    brought_about="the rows of a step in several parts and at once, without dropout; what is reported is compared",
    expects="reports the same loss of the same rows, however many parts or batches they are dealt out in",
)
def test_reported_loss_is_another(close_look: CloseLook) -> None:
    """It printed what it had divided for the backward pass: with four parts the loss was the best of all runs."""
    with noting(), contextlib.suppress(NotApplicable, CannotJudge):
        uneven, _ = close_look.with_changed_batches()
        tell(uneven, reports.find_mean_of_means(Look(uneven.recording), reports.read_reported(uneven)))
    parts, whole = close_look.in_parts_and_whole()
    told = (reports.read_reported(outcome) for outcome in (parts, whole))
    tell(whole, reports.find_factor(Look(parts.recording), Look(whole.recording), *told))


@edge_case(
    "other-weights-saved",
    number=121,
    title="saved weights that are not the trained ones",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("what is saved, and what each parameter was after each step, are"),
    expects="saves the weights that it trained, of the step that it says",
)
def test_other_weights_saved(close_look: CloseLook) -> None:
    """The model was copied for the export before training began: a week's result was the base model."""
    judge(close_look, saves.find_other_saved)


@edge_case(
    "base-model-not-loaded",
    number=122,
    title="a base model of which nothing is loaded",
    verdict="survives",
    severity="misleads",
    brought_about="a run from a base model, and where nothing of it is seen, one from the same with other weights",
    expects="begins with the weights of the base model that is named",
)
def test_base_model_not_loaded(close_look: CloseLook) -> None:
    """`strict=False`, and all names had a prefix: nothing matched, and "pretrained" was trained from scratch."""
    one, other = close_look.with_base_models()
    if other is not None:
        tell(other, movement.find_not_arrived(Look(one.recording), Look(other.recording)))


@edge_case(
    "average-astray",
    number=123,
    title="averaged weights that are no average",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("each copy of the model that follows it, between two steps, is"),
    expects="updates the average that it evaluates, to what lies between the average and the model, its statistics too",
)
def test_average_astray(close_look: CloseLook) -> None:
    """The average was made, saved and evaluated, and its update never called: every epoch was lost."""
    judge(close_look, averages.find_astray)


@edge_case(
    "validation-augmented",
    number=124,
    title="validation rows that are changed at random",
    verdict="survives",
    severity="misleads",
    brought_about=LOOKED.format("the rows and targets of each evaluation are"),
    expects="evaluates on the same rows each time, as they are",
)
def test_validation_augmented(close_look: CloseLook) -> None:
    """Both halves of a random split had the training half's transforms: the best epoch was the luckiest."""
    judge(close_look, validation.find_augmented)


@edge_case(
    "labels-do-not-count",
    number=125,
    title="labels or a seed that do not count",
    verdict="survives",
    severity="misleads",
    brought_about="another seed, and then labels exchanged between rows; losses and inputs are compared",
    expects="learns from the labels alone what the labels are, and draws other random numbers with another seed, and "
    "in each step",
)
def test_labels_do_not_count(close_look: CloseLook) -> None:
    """A renamed column, and `row.get("label", 0)`: the model learnt that everything is 0, at an accuracy of 100 %."""
    with noting(), contextlib.suppress(NotApplicable):  # labels count in a program without a seed, too
        plain, seeded = close_look.with_another_seed()
        tell(seeded, seeds.find_fixed(Look(plain.recording), Look(seeded.recording)))
    with noting():
        judge(close_look, seeds.find_same_draws)
    plain, relabelled, count = close_look.with_other_labels()
    tell(relabelled, seeds.find_unlabelled(Look(plain.recording), Look(relabelled.recording), count))
