#!/usr/bin/env bash
set -euo pipefail; here=$(dirname "$0"); out=${1:-.}; good=${2:-'text.lower().startswith("yes")'}; answer_with=(--engine "${ENGINE:-stub}")
batchfleet run "$here/science.jsonl" -o "$out/drafts.jsonl" --metadata-columns question,answer "${answer_with[@]}"
batchfleet run "$out/drafts.jsonl" -o "$out/judged.jsonl" --where 'status == "answered"' --template "$here/judge.jinja" "${answer_with[@]}"
batchfleet convert "$out/judged.jsonl" -o "$out/good.jsonl" --where "status == 'answered' and $good"
