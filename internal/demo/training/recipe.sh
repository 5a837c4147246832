#!/usr/bin/env bash
# Makes the demo model anew, in runs/demo-export, from the embedded text: 43 minutes for the text and 8 for
# the conversations on two cores that were shared with other work. Interrupted, it goes on where it was.
set -euo pipefail
cd "$(dirname "$0")/../../.."
mkdir -p runs
common=(--micro-batch-size 4 --global-batch-size 4 --adam-beta2 0.95 --moe-aux-loss-type megatron --moe-aux-loss-coeff 0.01 --split 969,30,1)

# 9.2 million tokens, six times the text: a constant rate, then down to a hundredth over the last quarter.
go run ./cmd/train --preset demo "${common[@]}" --train-iters 9000 --lr 1.5e-3 --min-lr 1.5e-5 --lr-decay-style WSD --lr-wsd-decay-iters 2250 \
	--lr-warmup-iters 100 --eval-interval 500 --eval-iters 43 --save-interval 500 --save runs/demo-text

# Conversations and text by turns, so that the text is not forgotten; the held-out text stays held out.
gunzip -c internal/corpus/mix.txt.gz > runs/mix.txt
gunzip -c internal/corpus/chat.jsonl.gz > runs/chat.jsonl
go run ./cmd/train --init runs/demo-text/step-00009000 --data-path "0.5 runs/mix.txt 0.5 runs/chat.jsonl" "${common[@]}" --train-iters 1500 \
	--lr 5e-4 --min-lr 5e-6 --lr-warmup-iters 10 --eval-interval 300 --eval-iters 10 --save-interval 300 --save runs/demo-chat4 \
	--export runs/demo-export
