#!/usr/bin/env bash
# Records answers of the live exchange as fixtures, in the exact bytes of the wire.
#
# OKX_REST_URL names another host, such as https://eea.okx.com. A file is replaced only by an
# answer that the exchange itself calls good.
set -euo pipefail
cd "$(dirname "$0")/../fixtures"

host="${OKX_REST_URL:-https://openapi.okx.com}"
command -v curl >/dev/null || { echo "record: curl is needed" >&2; exit 1; }
draft="$(mktemp .record.XXXXXX)"
trap 'rm -f "$draft"' EXIT

# record FILE PATH: asks once, and again where asking again can help.
record() {
    if ! curl --fail --silent --show-error --compressed --retry 3 --max-time 20 \
        --output "$draft" "$host$2"; then
        echo "record: $host does not answer $2: nothing more is recorded" >&2
        exit 1
    fi
    if ! grep -Eq '"code" *: *"?0"?[,}]' "$draft"; then
        echo "record: $host refuses $2: $(head -c 200 "$draft")" >&2
        exit 1
    fi
    chmod 644 "$draft"
    mv "$draft" "$1"
    echo "fixtures/$1: $(wc -c <"$1" | tr -d ' ') bytes of $2"
}

day_ms=86400000
today_ms=$(($(date +%s) * 1000 / day_ms * day_ms))

record rest_live_time.json "/api/v5/public/time"
record rest_live_candles.json "/api/v5/market/candles?instId=BTC-USDT&bar=1m&limit=5"
record rest_live_history.json \
    "/api/v5/market/history-candles?instId=BTC-USDT&bar=1m&after=$today_ms&limit=5"
record rest_live_day.json "/api/v5/market/candles?instId=BTC-USDT&bar=1D&limit=3"
record rest_live_swap.json "/api/v5/market/candles?instId=BTC-USDT-SWAP&bar=15m&limit=3"
record rest_live_spot.json "/api/v5/public/instruments?instType=SPOT&instId=BTC-USDT"

echo "Recorded on $(date -u +%F) from $host: say so in fixtures/README.md."
