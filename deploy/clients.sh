#!/bin/sh
# Runs the clients that people use against a server of ours on the demo model, and prints a line for each:
#
#   PASS openai for Python
#   SKIP aiperf: cannot be installed here
#   FAIL guidellm: exit 1, see …
#
#   deploy/clients.sh [FOLDER]
#
# Packages go into FOLDER, a temporary one by default; what is there already is used again. After the installation
# nothing is fetched. Needs Go and curl; the Python clients need Python 3.10 or later with pip and venv, the Node
# client needs npm. The exit code is 1 if a client fails, else 0: what cannot be installed is skipped.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
folder=${1:-$work/clients}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
pid=
failed=0

stop() {
	[ -n "$pid" ] || return 0
	kill "$pid" 2>/dev/null || true
	wait "$pid"
}
end() {
	stop || true
	# What failed may be looked at.
	[ "$failed" = 1 ] || rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM

# serve ARGUMENTS… starts a server and sets url.
serve() {
	"$work/serve" --port 0 "$@" 2>"$work/server.log" &
	pid=$!
	for _ in $(seq 600); do
		address=$(sed -n 's/.*msg=listening address=\([^ ]*\).*/\1/p' "$work/server.log")
		if [ -n "$address" ] && curl -sf "http://$address/ready" >/dev/null; then
			url=http://$address
			return
		fi
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.2
	done
	cat "$work/server.log" >&2
	echo "clients.sh: the server did not get ready" >&2
	exit 1
}

# client NAME COMMAND… runs a client and prints its line.
client() {
	name=$1
	shift
	log=$work/$(echo "$name" | tr -c 'a-zA-Z0-9\n' '-').log
	if "$@" >"$log" 2>&1; then
		echo "PASS $name"
	else
		echo "FAIL $name: exit $?, see $log"
		tail -n 30 "$log" >&2
		failed=1
	fi
}

# python ENVIRONMENT NAME PACKAGES… makes a virtual environment, and prints a line if it cannot.
python() {
	environment=$1 name=$2
	shift 2
	if ! python3 -m pip --version >/dev/null 2>&1; then
		echo "SKIP $name: there is no pip"
		return 1
	fi
	[ -f "$folder/$environment/installed" ] && return
	if python3 -m venv "$folder/$environment" && "$folder/$environment/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; then
		touch "$folder/$environment/installed"
	else
		echo "SKIP $name: cannot be installed here"
		return 1
	fi >"$work/install.log" 2>&1 || { tail -n 1 "$work/install.log"; return 1; }
}

node() {
	if ! npm --version >/dev/null 2>&1; then
		echo "SKIP openai for Node: there is no npm"
		return 1
	fi
	[ -d "$folder/node/node_modules/openai" ] && return
	mkdir -p "$folder/node"
	if ! (cd "$folder/node" && npm install --no-audit --no-fund openai@6.49.0) >"$work/install.log" 2>&1; then
		echo "SKIP openai for Node: cannot be installed here"
		return 1
	fi
}

harness() (
	export HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HOME="$work/hf"
	"$folder/harness/bin/lm_eval" --model local-completions --tasks mix_lines --include_path "$work/task" \
		--model_args "model=demo,base_url=$url/v1/completions,tokenizer_backend=remote,num_concurrent=4,max_length=256,tokenized_requests=True"
)

guidellm() (
	export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_HOME="$work/hf"
	"$folder/guidellm/bin/guidellm" run --disable-console-interactive --profile kind=concurrent,streams=4 \
		--backend "kind=openai_http,target=$url,model=demo,request_format=$1" --constraint kind=max_requests,count=20 \
		--data "kind=json_file,path=$work/prompts.jsonl" --output "kind=json,path=$work/guidellm.json"
	"$folder/guidellm/bin/python" - "$work/guidellm.json" <<-'END'
		import json, sys
		totals = json.load(open(sys.argv[1]))["benchmarks"][0]["metrics"]["request_totals"]
		print(totals)
		assert totals["successful"] == 20 and totals["errored"] == 0, totals
	END
)

aiperf() (
	export HF_HOME="$work/hf"
	cd "$work"
	"$folder/aiperf/bin/aiperf" profile -m demo --url "$url" --endpoint-type chat --streaming --concurrency 4 --request-count 12 --ui none \
		--tokenizer "$work/tokenizer" --use-server-token-count --extra-inputs ignore_eos:true \
		--synthetic-input-tokens-mean 20 --output-tokens-mean 12 --artifact-dir "$work/aiperf"
	"$folder/aiperf/bin/python" - "$work/aiperf/profile_export_aiperf.json" <<-'END'
		import json, sys
		run = json.load(open(sys.argv[1]))
		assert run["completed_request_count"]["avg"] == 12 and not run["error_summary"], run
		assert run["output_sequence_length"]["avg"] == 12, run["output_sequence_length"]
	END
)

(cd "$root" && CGO_ENABLED=0 go build -o "$work/serve" ./cmd/serve)
mkdir "$work/task" "$work/tokenizer"
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
for i in $(seq 40); do
	echo "{\"prompt\": \"In the beginning, number $i\", \"output_tokens_count\": 12, \"prompt_tokens_count\": 6}"
done >"$work/prompts.jsonl"

serve
if python harness "openai for Python, lm-eval, schemathesis" 'openai>=2' 'lm-eval[api]==0.4.13' schemathesis==4.32.5; then
	client "openai for Python" "$folder/harness/bin/python" "$root/deploy/openai_client.py" "$url/v1"
	client "lm-eval local-completions" harness
	client "lm-eval chat template" "$folder/harness/bin/python" "$root/deploy/template_client.py" "$url"
fi
if node; then
	cd "$folder/node"
	client "openai for Node" command node "$root/deploy/openai_client.mjs" "$url/v1"
	cd "$root"
fi
if python guidellm guidellm guidellm==0.8.1; then
	client "guidellm completions" guidellm /v1/completions
	client "guidellm chat" guidellm /v1/chat/completions
fi
if python aiperf aiperf aiperf==0.13.0; then
	# Any tokenizer will do to make prompts; what the server says of its own goes beside it.
	gunzip -c "$root/graph/token/testdata/tokenizer.json.gz" >"$work/tokenizer/tokenizer.json"
	curl -sf "$url/tokenizer_info" >"$work/tokenizer/tokenizer_config.json"
	client "aiperf chat" aiperf
fi
client "the server's end" stop

# A short context, because the document lets answers be as long as that.
if [ -f "$folder/harness/installed" ]; then
	serve --api-key sesame --max-model-len 96
	cd "$work" # it keeps notes of its own
	client "schemathesis" "$folder/harness/bin/schemathesis" --config-file "$root/deploy/schemathesis.toml" run "$url/openapi.json" \
		-H 'Authorization: Bearer sesame' --workers 1 --request-timeout 60 --max-examples "${EXAMPLES:-25}" --seed 1 --continue-on-failure --report-dir "$work/schemathesis"
	stop || true
	pid=
fi
exit $failed
