"""What the catalogue comes to for an ordinary program of each known framework (`test_adoption.py`).

Each finding was read, and is true: nothing in these programs looks at its data, its settings or what it resumes from,
and what the frameworks do by themselves is what they are found to do. What else is found is a false alarm, or a change
of the framework; what is no longer found is missed. All other cases pass.

Cases 74, 75 and 77 to 79 are left out for their time: they raise another exception at the same four places as 71 to 73,
76 and 80 do, which are a third of all runs.
"""

CASES = "1-73,76,80,1001"

NOT_APPLICABLE = {
    3, 9, 11, 12, 13, 18, 19, 29, 31, 32, 33, 34, 35, 36, 39, 40, 49, 51, 52, 53, 57, 58, 59, 60, 67, 68, 69, 70,
}  # fmt: skip

# Number → the gravest grade, then the causes that its problems have in common with those of other cases.
FOUND = {
    4: "unclear: unnamed",  # json's own message: neither file nor line
    5: "unclear: unnamed",  # KeyError: 'x'
    8: "misleads: leaves-files, unnamed",  # `true` is trained on as 1; other types fail in the batch that they are in
    10: "unclear: unnamed",  # a bare MemoryError
    22: "unclear: unnamed",
    26: "unclear: unnamed",  # not a word of the device
    27: "unclear: unnamed",
    37: "misleads: late-checks, unchecked-settings, unnamed",  # 0 and infinity are learning rates
    44: "unclear: unnamed",  # EIO without the file's name
    48: "loses",  # no lock
    56: "unclear: unnamed",
    64: "misleads: not-finite",  # none of them stops at NaN by itself
    65: "misleads: not-finite",
}

TRANSFORMERS = {
    1: "unclear: unnamed",
    6: "wastes: leaves-files, unnamed",  # fails in the batch that the row is in, after the first save
    7: "wastes: leaves-files, unnamed",
    17: "unclear: unnamed",
    20: "unclear: unnamed",
    25: "loses: raises:ValueError, unnamed",  # the half-written checkpoint is the newest
    42: "loses: no-fsync",
    43: "loses: raises:FileNotFoundError",  # SIGTERM in a save, which nothing answers, leaves its folder half full
    46: "wastes",  # the first save finds out
    61: "misleads",  # max_steps=0 takes one
    62: "misleads: unchecked-state",
    # A save that fails leaves its folder half full, and that is the newest checkpoint.
    **dict.fromkeys((71, 72, 73, 76, 80), "loses: raises:FileNotFoundError"),
}

# Lightning resumes a plain DataLoader at its first batch, and warns of it.
PLACE = "misleads: resume:place-in-the-data"

FOUND_IN = {
    "Bert": {
        **TRANSFORMERS,
        # What is missing is passed over: the step count, the random state, the schedule.
        16: "loses: resume:none, resume:optimizer-state+learning-rate, resume:random-state-of-torch",
    },
    "BertLora": {**TRANSFORMERS, 16: "loses: resume:none, resume:optimizer-state+learning-rate"},
    "Lightning": {
        1: "misleads: unnamed",  # no rows are no batches, and exit 0
        6: "wastes: leaves-files, unnamed",
        7: "wastes: leaves-files, unnamed",
        14: "unclear: unnamed",  # no word of a fresh start
        20: "misleads: resume:place-in-the-data, unnamed",
        25: "loses: half-written",  # saves in place
        42: "loses: no-fsync, resume:place-in-the-data",
        46: "wastes",
        **dict.fromkeys((16, 17, 28, 43, 47, 50, 71, 72, 73, 76, 80), PLACE),
        41: f"{PLACE}+random-state-of-torch",  # ended within an epoch: it saves no random state
    },
    "Geometric": {
        1: "unclear: unnamed",
        6: "unclear: unnamed",
        7: "unclear: unnamed",
        8: "misleads: unnamed",  # one batch of all rows: whatever fails, fails before the first step
        14: "unclear: unnamed",
        16: "unclear: unnamed",
        17: "misleads: unchecked-state, unnamed",  # step 3.5 is fewer than 8
        20: "unclear: unnamed",
        25: "loses: half-written, unnamed",
        42: "loses: no-fsync",
        46: "wastes: unnamed",
        61: "unclear: unchecked-settings",
        62: "misleads: unchecked-state",
    },
}

NOT_APPLICABLE_IN = {"Bert": set(), "BertLora": set(), "Lightning": {15, 62}, "Geometric": {15}}


def expected(name, numbers):
    """Number → what it comes to, for one program."""
    passed = dict.fromkeys(numbers, "passed")
    left = dict.fromkeys(NOT_APPLICABLE | NOT_APPLICABLE_IN[name], "not applicable")
    return {**passed, **left, **FOUND, **FOUND_IN[name]}


def told(case):
    """What a case of a report comes to, as it is written above."""
    if case["grade"] is None:
        return case["verdict"].replace("_", " ")
    causes = sorted({problem["cause"].partition("@")[0] for problem in case["problems"] if problem["cause"]})
    return f"{case['grade']}: {', '.join(causes)}" if causes else case["grade"]
