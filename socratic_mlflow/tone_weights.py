"""Written by calibration/fit_tone.py from a judge's ratings of 220 replies; how is in docs/style.md. Not edited by hand."""

BASE = 0.214

WEIGHTS = {
    "kane": 0.193,
    "no_kane": 0.13,
    "darouka": 0.105,
    "plain_question": 0.036,
    "kimi": 0.15,
    "opening": 0.119,
    "dewa": 0.053,
    "polite": -0.112,
    "asks_nothing": -0.102,
    "markup": -0.118,
    "literal_escape": -0.046,
    "outer_quotes": -0.025,
    "latin_debris": -0.025,
}
