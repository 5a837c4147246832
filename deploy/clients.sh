#!/bin/sh
# Runs the openai package and lm-eval against a server of ours, on the demo model.
#
#   deploy/clients.sh [FOLDER]
#
# Python packages go into a virtual environment in FOLDER, a temporary one by default; one that is there already is
# used again. After the installation nothing is fetched. Needs Go, Python 3.10 or later with pip and venv, and curl.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
python3 -m pip --version >/dev/null 2>&1 || { echo "clients.sh: skipped, there is no pip" >&2; exit 0; }
work=$(mktemp -d)
folder=${1:-$work/python}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
pid=
end() {
	if [ -n "$pid" ]; then
		kill "$pid" 2>/dev/null || true
		wait "$pid" 2>/dev/null || true
	fi
	rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM

[ -x "$folder/bin/python" ] || python3 -m venv "$folder"
python=$folder/bin/python
"$python" -c 'import openai, lm_eval' 2>/dev/null ||
	"$python" -m pip install --quiet --disable-pip-version-check 'openai>=2' 'lm-eval[api]==0.4.13'

(cd "$root" && CGO_ENABLED=0 go build -o "$work/serve" ./cmd/serve)
"$work/serve" --port 0 2>"$work/log" &
pid=$!
url=
for _ in $(seq 600); do
	address=$(sed -n 's/.*msg=listening address=\([^ ]*\).*/\1/p' "$work/log")
	if [ -n "$address" ] && curl -sf "http://$address/ready" >/dev/null; then
		url=http://$address
		break
	fi
	kill -0 "$pid" 2>/dev/null || break
	sleep 0.2
done
[ -n "$url" ] || { cat "$work/log" >&2; echo "clients.sh: the server did not get ready" >&2; exit 1; }

echo "openai:"
"$python" "$root/deploy/openai_client.py" "$url/v1"

echo "lm-eval:"
mkdir "$work/task"
cat >"$work/task/lines.jsonl" <<'END'
{"question": "The sun rises in the", "choices": [" east", " west"], "answer": 0}
{"question": "Water is", "choices": [" wet", " dry"], "answer": 0}
{"question": "He opened the door and", "choices": [" went in", " the the"], "answer": 0}
END
cat >"$work/task/lines.yaml" <<END
task: mix_lines
dataset_path: json
dataset_kwargs:
  data_files:
    test: $work/task/lines.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
END
export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HOME="$work/hf"
"$folder/bin/lm_eval" --model local-completions --tasks mix_lines --include_path "$work/task" \
	--model_args "model=demo,base_url=$url/v1/completions,tokenizer_backend=remote,num_concurrent=4,max_length=256,tokenized_requests=True"

kill "$pid"
wait "$pid" || { echo "clients.sh: the server ended with $?" >&2; pid=; exit 1; }
pid=
echo "all clients are content"
