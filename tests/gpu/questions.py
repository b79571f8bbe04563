"""`python -m tests.gpu.questions N`: N questions as JSON lines, with answers of 16 to 64 tokens.

The answers have that length whatever the model says.
"""

from __future__ import annotations

import json
import sys

from batchfleet.tuning.sample_questions import make_questions

for number, text in enumerate(make_questions(int(sys.argv[1]), seed=1)):
    params = {"max_tokens": 16 + number % 49, "min_tokens": 16 + number % 49, "ignore_eos": True}
    print(json.dumps({"id": f"q{number}", "question": text, "params": params}))
