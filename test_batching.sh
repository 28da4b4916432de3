#!/usr/bin/env bash
# Tries the job batching of a running sidecar with plain curl. Every sample must be answered as documented.
#
#   ./test_batching.sh [URL] [--performance]
#
# URL             http://localhost:3000 unless given; SIDECAR_HTTP_TOKEN is sent where it is set
# --performance   also times 1,000 single jobs against one request with 1,000 jobs
#
# The jobs are real: Add, Subtract, Multiply and Divide in the queue `default`.
# Exit code: 0 all samples behaved, 1 a sample misbehaved, 2 wrong usage, or no sidecar at URL.

set -u

url=http://localhost:3000
performance=no
for argument in "$@"; do
  case $argument in
    --performance) performance=yes ;;
    -h | --help) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "unknown option $argument; try --help" >&2; exit 2 ;;
    *) url=${argument%/} ;;
  esac
done

failed=0
status=''
answer=''

# The token goes in by standard input: command lines can be read by other users.
ask() {
  if [ -n "${SIDECAR_HTTP_TOKEN:-}" ]; then
    printf 'header = "Authorization: Bearer %s"\n' "$SIDECAR_HTTP_TOKEN" | curl --silent --config - "$@"
  else
    curl --silent "$@" < /dev/null
  fi
}

# post PATH BODY: sets $status and $answer.
post() {
  local reply
  reply=$(ask --write-out '\n%{http_code}' -X POST "$url$1" -H 'Content-Type: application/json' -d "$2") || reply=$'\n000'
  status=${reply##*$'\n'}
  answer=${reply%$'\n'*}
}

# sample NAME STATUS PATTERN PATH BODY: the answer must have the status and match the extended regular expression.
sample() {
  post "$4" "$5"
  if [ "$status" = "$2" ] && printf '%s' "$answer" | grep -Eq -- "$3"; then
    echo "ok    $1"
  else
    failed=$((failed + 1))
    echo "WRONG $1: status $status (wanted $2), answer: ${answer:0:400}"
  fi
}

now() { date +%s%N; }

# rate NAME JOBS FROM TO: what a measurement says, times in nanoseconds.
rate() {
  awk -v name="$1" -v jobs="$2" -v ns="$(($4 - $3))" \
    'BEGIN { s = ns / 1e9; printf "%-42s %5d jobs in %8.3f s: %10.1f jobs/s\n", name, jobs, s, jobs / s }'
}

if ! ask --output /dev/null --max-time 5 "$url/openapi.json"; then
  echo "no sidecar answers at $url: start one with 'faktory-sidecar', or name its URL" >&2
  exit 2
fi

jid='[0-9a-f]{24}'
single="^\{\"job_id\": ?\"$jid\", ?\"message\": ?\"Successfully enqueued %s job\"\}$"

echo "== Manual batch endpoint"
sample 'three jobs in one request' 200 \
  "^\{\"job_ids\": ?\[(\"$jid\",? ?){3}\], ?\"message\": ?\"Successfully enqueued 3 jobs in batch\", ?\"total_enqueued\": ?3\}$" \
  /jobs/batch '{
    "jobs": [
      {"type": "Add", "args": {"a": 1, "b": 2}},
      {"type": "Subtract", "args": {"a": 10, "b": 5}},
      {"type": "Multiply", "args": {"a": 3, "b": 4}}
    ]
  }'
sample 'request ids are kept' 200 'Successfully enqueued 2 jobs in batch' /jobs/batch '{
    "jobs": [
      {"type": "Add", "args": {"a": 1, "b": 2, "request_id": "req-1"}},
      {"type": "Multiply", "args": {"a": 5, "b": 10, "request_id": "req-2"}}
    ]
  }'

echo "== Single jobs, batched by themselves"
for operation in Add Subtract Multiply Divide; do
  # shellcheck disable=SC2059 # the pattern has a place for the name
  sample "one $operation job" 200 "$(printf "$single" "$operation")" "/jobs/${operation,,}" '{"a": 12, "b": 4}'
done

echo "== A hundred at the same time"
replies=$(mktemp)
trap 'rm -f "$replies"' EXIT
for i in {1..100}; do
  ask --write-out '%{http_code}\n' --output /dev/null -X POST "$url/jobs/add" \
    -H 'Content-Type: application/json' -d "{\"a\": $i, \"b\": $((i * 2))}" >> "$replies" &
done
wait
good=$(grep -c '^200$' "$replies")
if [ "$good" = 100 ]; then
  echo "ok    100 concurrent requests"
else
  failed=$((failed + 1))
  echo "WRONG 100 concurrent requests: only $good were answered with 200"
fi

echo "== What is wrong is told"
sample 'a batch that is not valid is refused whole' 422 '"index": ?1' /jobs/batch \
  '{"jobs": [{"type": "Add", "args": {"a": 1, "b": 2}}, {"type": "Add", "args": {"a": 1}}]}'
sample 'an empty batch' 422 'is empty' /jobs/batch '{"jobs": []}'
sample 'an operand that is no number' 422 'a number' /jobs/add '{"a": "1", "b": 2}'
sample 'a body that is not JSON' 422 'not JSON' /jobs/add 'a=1'

if [ "$performance" = yes ]; then
  echo "== Performance"
  from=$(now)
  for i in {1..1000}; do
    post /jobs/add "{\"a\": $i, \"b\": $((i * 2))}"
    [ "$status" = 200 ] || break
  done
  to=$(now)
  if [ "$status" = 200 ]; then
    rate 'single jobs, one curl each' 1000 "$from" "$to"
  else
    failed=$((failed + 1))
    echo "WRONG single job $i: status $status, answer: ${answer:0:400}"
  fi

  jobs=$(for i in {1..1000}; do printf '{"type": "Add", "args": {"a": %d, "b": %d}},' "$i" "$((i * 2))"; done)
  from=$(now)
  post /jobs/batch "{\"jobs\": [${jobs%,}]}"
  to=$(now)
  if [ "$status" = 200 ] && [[ $answer == *'Successfully enqueued 1000 jobs in batch'* ]]; then
    rate 'one request with 1,000 jobs' 1000 "$from" "$to"
  else
    failed=$((failed + 1))
    echo "WRONG one request with 1,000 jobs: status $status, answer: ${answer:0:400}"
  fi
fi

if [ "$failed" -gt 0 ]; then
  echo "$failed samples misbehaved"
  exit 1
fi
echo "All samples behaved"
