"""Written by calibration/fit_tone.py from a judge's ratings of 220 replies; how is in docs/style.md. Not edited by hand."""

BASE = 0.233

WEIGHTS = {
    "kane": 0.189,
    "no_kane": 0.127,
    "darouka": 0.103,
    "plain_question": 0.03,
    "kimi": 0.157,
    "opening": 0.117,
    "dewa": 0.044,
    "polite": -0.116,
    "asks_nothing": -0.118,
    "markup": -0.118,
    "literal_escape": -0.046,
    "outer_quotes": -0.025,
    "latin_debris": -0.024,
}
