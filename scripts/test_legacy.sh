#!/usr/bin/env bash
# The legacy stack (TensorFlow 2.15.1 with tensorflow-addons, Python 3.10/3.11):
# trains, resumes and evaluates on small images, once with LAMB.
set -eu
. "$(dirname "$0")/env.sh" .venv-legacy -r requirements-legacy.txt 'scikit-image>=0.21,<0.26' 'scikit-learn>=1.2' pytest
run=$(mktemp -d)
trap 'rm -rf "$run"' EXIT
small="--preset=quickstart --image_size=32 --train_batch_size=32 --eval_batch_size=64
  --proj_head_hidden_dim=32 --proj_out_dim=16 --data_dir=$run/data --warmup_epochs=0
  --eval_split=test[:128] --train_split=train[:256]"
"$python" -m pytest -q tests/legacy_lamb.py
"$python" run.py $small --model_dir="$run/lars" --train_steps=2 --mode=train
"$python" run.py $small --model_dir="$run/lars" --train_steps=4 --resume=must \
  --allow_config_change
"$python" run.py $small --model_dir="$run/lars" --mode=eval --train_steps=4
"$python" run.py $small --model_dir="$run/lars" --mode=evaluate \
  --suite=linear,knn,robustness --corrupt=fog,jpeg_compression --linear_passes=1
"$python" run.py $small --model_dir="$run/lamb" --train_steps=2 --optimizer=lamb \
  --pretrain_loss=byol_ceb
grep -q '"global_step": 4.0' "$run/lars/eval/result.json"
grep -q '"global_step": 2.0' "$run/lamb/result.json"
grep -q '"jpeg_compression/online"' "$run/lars/eval/card.json"
echo 'legacy stack: trained, resumed, evaluated'
