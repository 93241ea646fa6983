#!/usr/bin/env bash
# Ten minutes on one data-centre GPU: tests, steps beside peers, memory, input, precision and cached features, as
# Markdown tables for docs/guide/speed.md. Every part has a time limit, and a part that fails leaves the others.
#
#     make gpu                           (a GPU)
#     make gpu DEVICE=cpu SIZE=tiny      (whether every part runs, in a minute)
set -u
device=${DEVICE:-cuda} size=${SIZE:-full} python=${PYTHON:-.venv/bin/python}
failed=0

part() { # part SECONDS TITLE COMMAND…
  local limit=$1 title=$2
  shift 2
  [ "$device" = cpu ] && limit=$((5 * limit)) # the limits are those of ten minutes on a GPU
  printf '\n## %s\n\n    %s\n\n' "$title" "$*"
  timeout --kill-after 5 "$limit" "$@" 2>/tmp/domainclip-gpu.err || {
    printf '\nfailed or out of its %s s:\n' "$limit"
    tail -5 /tmp/domainclip-gpu.err
    failed=1
  }
}

if [ "$size" = tiny ]; then
  models=(tiny) batch=16 large=(32 64) images=128 rounds=1
else
  models=(ViT-B/16 ViT-L/14) batch=256 large=(1024 8192) images=4096 rounds=5
fi

part 60 "Tests that need a GPU" "$python" -m pytest -q -m gpu tests/system/test_faults.py tests/training
for model in "${models[@]}"; do
  part 110 "Steps beside peers: $model" "$python" benchmarks/training.py --device "$device" --model "$model" \
    --batch "$batch" --micro "$batch" --rounds "$rounds"
done
part 90 "Memory by batch: ${models[0]}" "$python" benchmarks/memory.py --device "$device" --model "${models[0]}" \
  --batches "$batch" "${large[@]}" --micro "$batch"
part 120 "Waiting for images" "$python" benchmarks/device.py waiting --device "$device" --model "${models[0]}" \
  --images "$images" --batch "$batch"
part 60 "Precision" "$python" benchmarks/device.py precision --device "$device" --model "${models[0]}" \
  --batch "$batch"
part 60 "Cached features" "$python" benchmarks/device.py features --device "$device" --model "${models[0]}" \
  --images "$images" --batch "$batch"
exit $failed
