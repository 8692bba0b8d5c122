#!/usr/bin/env bash
# Shows the program at work without a network: an exchange on loopback, a store in a folder that
# is thrown away afterwards.
set -euo pipefail

bin=${1:-$(dirname "$0")/../target/release}
dir=$(mktemp -d)
exchange=
# The exchange ends with us, however we end.
trap 'if [ -n "$exchange" ]; then kill "$exchange" 2>/dev/null || true; fi; rm -rf "$dir"' EXIT

say() { printf '\n\033[1m%s\033[0m\n' "$*" | if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi; }
run() {
    say "\$ okx-store $*"
    "$bin/okx-store" --config "$dir/config.json" "$@"
}

"$bin/examples/fixture-exchange" \
    --synthetic BTC-USDT:20 --synthetic ETH-USDT:20 --synthetic BTC-USDT-SWAP:20 \
    --port-file "$dir/port" >"$dir/exchange.log" 2>&1 &
exchange=$!
for _ in $(seq 100); do
    [ -s "$dir/port" ] && break
    kill -0 "$exchange" 2>/dev/null || { cat "$dir/exchange.log" >&2; exit 1; }
    read -r -t 0.1 <> <(:) || true
done
[ -s "$dir/port" ] || { echo "the fixture exchange did not start within 10 s" >&2; exit 1; }

cat >"$dir/config.json" <<JSON
{
  // The exchange of this demonstration; leave the key out for the live one.
  "rest_url": "http://127.0.0.1:$(cat "$dir/port")",
  "instruments": [
    { "symbol": "BTC-USDT", "timeframes": ["1m", "1h", "1Dutc"], "max_history_days": 3 },
    { "symbol": "ETH-USDT", "timeframes": ["5m", "1h"], "max_history_days": 7 }
  ]
}
JSON

run sync --all
run status
run query BTC-USDT 1h --count 5
run export ETH-USDT 5m "$dir/eth.csv" --days 1
say "\$ head -4 eth.csv"
head -4 "$dir/eth.csv"
run add-symbol BTC-USDT-SWAP --timeframes 1h --history-days 2
run sync BTC-USDT-SWAP
run overview
run gaps
